"""Models from the hub: what arrives, what is refused, and what is on record. The hub here is a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.errors import InputError, StackError
from stack.locks import taking_turns
from stack.models.fetch import ensure_models, look
from stack.models.toy import make_toy_model
from stack.yaml_input import parsed
from unit import given, hub_standin
from unit.hub_standin import COMMIT, GOOD_TOKEN, OTHER_TOKEN, PINNED, Hub, sha256

Fetch = Callable[..., Path]
USEFUL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The toy model, and beside it what a real repository also holds."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    make_toy_model(folder)
    useless = ("pytorch_model.bin", "modeling.py", "training.pt", ".gitattributes", "onnx/model.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()} | dict.fromkeys(useless, b"x")


@pytest.fixture
def hub(toy_files: dict[str, bytes], no_hub_settings: None) -> Iterator[Hub]:
    with hub_standin.serve(Hub(dict(toy_files))) as it:
        yield it


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    """Fetches o/m from the stand-in; where the plan expects it."""

    def call(token_file: str | None = None, repository: str = "o/m", **source: str) -> Path:
        stack = given.config(
            given.toy(source={"hub": repository, **source}),
            paths={"state": str(tmp_path)},
            hub={"mirror": hub.url, "token_file": token_file},
        )
        ensure_models(stack, tmp_path, lambda _: None)
        return Path(given.plan(stack).engines[0].model_dir)

    return call


def arrived(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def recorded(tmp_path: Path) -> dict[str, dict[str, object]]:
    models: dict[str, dict[str, object]] = parsed((tmp_path / "models.lock").read_text())["models"]
    return models


def test_a_model_lands_where_the_plan_mounts_it_byte_for_byte(hub: Hub, fetch: Fetch) -> None:
    folder = fetch()
    assert arrived(folder) == USEFUL
    assert {name: (folder / name).read_bytes() for name in USEFUL} == {name: hub.files[name] for name in USEFUL}


def test_what_is_there_is_not_fetched_again(hub: Hub, fetch: Fetch) -> None:
    fetch()
    seen = len(hub.asked)
    fetch()
    assert len(hub.asked) == seen


def test_a_look_names_what_is_missing_and_writes_nothing(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    config = given.config(
        given.toy(source={"hub": "o/m"}), paths={"state": str(tmp_path / "s")}, hub={"mirror": hub.url}
    )
    (before,) = look(config, tmp_path, lambda _: None)
    assert (before.what, before.folder) == ("missing", str(tmp_path / "s/models/o--m/unpinned"))
    assert not (tmp_path / "s").exists()
    asked = len(hub.asked)
    assert [each.what for each in look(config, tmp_path, lambda _: None, offline=True)] == ["missing"]
    assert len(hub.asked) == asked
    ensure_models(config, tmp_path, lambda _: None)
    assert [each.what for each in look(config, tmp_path, lambda _: None)] == ["here"]


@pytest.mark.usefixtures("fetch")
def test_a_look_asks_the_disk_for_all_that_is_missing_together(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("stack.models.fetch.check_space", lambda folder, needed, what: seen.append(needed))
    both = [
        given.toy(source={"hub": "o/m"}),
        given.toy(served_model_name="b", source={"hub": "o/m", "revision": PINNED}),
    ]
    look(given.config(*both, paths={"state": str(tmp_path)}, hub={"mirror": hub.url}), tmp_path, lambda _: None)
    assert seen == [2 * sum(len(hub.files[name]) for name in USEFUL)]


def test_a_pinned_revision_is_the_one_that_is_fetched(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    assert fetch(revision=PINNED) != fetch()
    assert {name: entry["commit"] for name, entry in recorded(tmp_path).items()} == {
        f"o--m/{PINNED}": PINNED,
        "o--m/unpinned": COMMIT,
    }


def test_what_came_is_on_record_with_its_source_and_every_checksum(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    fetch()
    entry = recorded(tmp_path)["o--m/unpinned"]
    assert (entry["source"], entry["repository"], entry["endpoint"], entry["commit"]) == ("hub", "o/m", hub.url, COMMIT)
    assert entry["files"] == {
        name: {"size": len(hub.files[name]), "sha256": sha256(hub.files[name])} for name in USEFUL
    }
    assert str(entry["fetched"]).endswith("Z")


def test_a_record_of_something_else_is_kept_and_stops_a_fetch_before_it_begins(
    hub: Hub, fetch: Fetch, tmp_path: Path
) -> None:
    (tmp_path / "models.lock").write_text("other/model: " + "c" * 40 + "\n")
    with pytest.raises(StackError, match=r"models\.lock is not a record"):
        fetch()
    assert hub.asked == []


def test_a_mirror_that_lists_names_only_is_asked_for_each_files_checksum(hub: Hub, fetch: Fetch) -> None:
    hub.names_only = True
    assert arrived(fetch()) == USEFUL


def test_a_file_too_large_for_plain_http_comes_by_the_librarys_own_protocol(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repository: str, name: str, *, local_dir: Path, **_: object) -> str:
        local_dir.mkdir()
        (local_dir / name).write_bytes(hub.files[name])
        return str(local_dir / name)

    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 2**20)
    monkeypatch.setattr("stack.models.hub_fetch.hf_hub_download", download)
    folder = fetch()
    assert arrived(folder) == USEFUL
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    assert hub.ranges("model.safetensors") == []


def test_weights_that_could_run_code_are_not_fetched(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    with pytest.raises(StackError, match=r"o/m has no \*\.safetensors"):
        fetch()
    assert arrived(tmp_path / "models") == {"lock"}


def test_a_name_that_leads_out_of_the_folder_is_refused(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    hub.files[f"{tmp_path}/evil.json"] = hub.files["../evil.json"] = b"{}"
    with pytest.raises(StackError, match="outside its folder"):
        fetch()
    assert not list(tmp_path.rglob("evil.json"))


def test_files_that_disagree_with_their_config_are_not_put_in_place(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    hub.files["config.json"] = hub.files["config.json"].replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 3')
    with pytest.raises(StackError, match="num_hidden_layers is 3, the weights hold 2"):
        fetch()
    assert not (tmp_path / "models/o--m/unpinned").exists()


def test_a_disk_without_room_is_told_before_the_first_byte(
    hub: Hub, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.disk_space.RESERVE_BYTES", 2**60)
    with pytest.raises(StackError, match=r"2\.\d MiB are still to come .* Nothing was written"):
        fetch()
    assert [path for path, _, _ in hub.asked] == ["/api/models/o/m"]


def test_one_fetch_at_a_time(hub: Hub, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(_: str) -> None:
        raise StackError("waits")

    monkeypatch.setattr("stack.locks.step", waits)
    with taking_turns(tmp_path / "models"), pytest.raises(StackError, match="waits"):
        fetch()
    assert arrived(fetch()) == USEFUL


def test_a_token_file_opens_a_gated_model_and_the_token_stays_out_of_everything_else(
    hub: Hub, fetch: Fetch, tmp_path: Path
) -> None:
    hub.gated = True
    secret = tmp_path / "secret"
    secret.write_text(GOOD_TOKEN + "\n")
    secret.chmod(0o600)
    fetch(token_file=str(secret))
    assert hub.tokens("/o/m/resolve/") == {GOOD_TOKEN}
    assert hub.tokens("/blobs/model.safetensors") == {None}, "another host is not told the token"
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path != secret]
    assert others
    assert not [path for path in others if GOOD_TOKEN.encode() in path.read_bytes()]


def test_a_token_of_the_environment_is_used_and_not_left_for_other_programs(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    fetch()
    assert hub.tokens("/api/") == {GOOD_TOKEN}


@pytest.mark.parametrize(
    ("token", "gated", "message"),
    [
        (None, True, "gated: accept its terms at http.*/o/m; the token goes into a file"),
        (OTHER_TOKEN, True, "gated, and this token's account has no access"),
        ("hf_wrong", False, r"the token was not accepted \(401\)"),
    ],
)
def test_a_hub_that_refuses_says_what_to_do(
    hub: Hub,
    fetch: Fetch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    gated: bool,
    message: str,
) -> None:
    hub.gated = gated
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(StackError, match=message) as error:
        fetch()
    assert error.value.exit_code == 1
    assert token is None or token not in str(error.value)
    assert not (tmp_path / "models.lock").exists()


def test_a_repository_that_is_not_there_is_told_as_such(fetch: Fetch) -> None:
    with pytest.raises(StackError, match=r"no/such could not be fetched .* no such repository .* it is private"):
        fetch(repository="no/such")


def test_a_revision_that_is_not_there_is_told_as_such(fetch: Fetch) -> None:
    with pytest.raises(StackError, match="no such revision"):
        fetch(revision="c" * 40)


def test_a_file_that_is_gone_is_told_as_such(hub: Hub, fetch: Fetch) -> None:
    hub.faults["/resolve/"] = [(404, {"X_Error_Code": "EntryNotFound"})] * 9
    with pytest.raises(StackError, match=r"no such repository or file \(404\)"):
        fetch()


def test_a_token_that_cannot_be_read_is_bad_input_and_nothing_is_asked(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hub\.token_file: .*: the token cannot be read: Is a directory"):
        fetch(token_file=str(tmp_path))
    assert hub.asked == []
