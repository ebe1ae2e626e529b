"""`make fetch`: folders of one's own are checked, tokens and mirrors are found, results are for people and machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stack.config.schema import Hub
from stack.disk_space import gib
from stack.errors import InputError, StackError
from stack.models import hub_access
from stack.models import lock as models_lock
from stack.models.fetch import ensure_models
from stack.models.toy import make_toy_model
from stack.models.transfer import Meter, StoppedError, side_by_side
from unit import given
from unit.conftest import WriteStack
from unit.test_scripts import run

pytestmark = pytest.mark.usefixtures("no_hub_settings")


def secret(tmp_path: Path, content: bytes = b"hf_x\n", mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_folder_of_ones_own_is_checked_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    make_toy_model(folder)
    stack = given.config(given.toy(source={"path": str(folder)}), paths={"state": str(tmp_path / "state")})
    assert [outcome.what for outcome in ensure_models(stack, tmp_path, lambda _: None)] == ["here"]
    assert not (tmp_path / "state").exists()
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"stack\.yaml: models\[0\]\.source\.path: .*is cut off or damaged"):
        ensure_models(stack, tmp_path, lambda _: None)


def test_every_folder_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    models = [given.toy(served_model_name=name, source={"path": str(tmp_path / name)}) for name in ("a", "b")]
    with pytest.raises(InputError) as error:
        ensure_models(given.config(*models), tmp_path, lambda _: None)
    assert given.wheres(error.value) == ["models[0].source.path", "models[1].source.path"]


def test_the_command_says_what_is_where_and_does_nothing_twice(
    write_stack: WriteStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {toy: true}}]\n"
        f"paths: {{state: {tmp_path}/state}}\n"
    )
    code, out, err = run(monkeypatch, capsys, "fetch_model.py", str(stack), "--json")
    assert (code, json.loads(out)[0]["what"]) == (0, "made")
    assert "made the toy model" in err
    code, out, err = run(monkeypatch, capsys, "fetch_model.py", str(stack))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].split() == ["toy", "here", f"{tmp_path}/state/models/toy-llama"]


def test_a_token_file_on_the_command_line_that_is_not_there_is_exit_code_2(
    write_stack: WriteStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = write_stack(
        f"models: [{{served_model_name: m, source: {{hub: o/m}}}}]\npaths: {{state: {tmp_path}/state}}\n"
    )
    code, out, err = run(monkeypatch, capsys, "fetch_model.py", str(stack), "--token-file", f"{tmp_path}/none")
    assert (code, out) == (2, "")
    assert err == (
        f"error: --token-file {tmp_path}/none: the token cannot be read: No such file or directory; put the token alone"
        " into this file\n"
    )


def test_the_nearest_setting_of_hub_and_token_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(mirror="https://mirror", token_file=secret(tmp_path, b"of-stack-file").name)
    assert hub_access.endpoint(Hub()) == "https://huggingface.co"
    assert hub_access.endpoint(hub) == "https://mirror"
    assert hub_access.token(Hub(), tmp_path, "https://h") is None
    assert hub_access.token(hub, tmp_path, "https://h") == "of-stack-file"
    monkeypatch.setenv("HF_ENDPOINT", "https://other/")
    assert hub_access.endpoint(hub) == "https://other"
    monkeypatch.setenv("HF_TOKEN", "of-environment")
    assert hub_access.token(hub, tmp_path, "https://h") == "of-environment"
    monkeypatch.setenv("HF_TOKEN", "of-environment")
    (tmp_path / "given").write_text("of-command-line")
    assert hub_access.token(hub, tmp_path, "https://h", tmp_path / "given") == "of-command-line"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", "hf_ü".encode()])
def test_what_is_no_token_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="token") as error:
        hub_access.token(Hub(), tmp_path, "https://h", secret(tmp_path, content))
    assert "two words" not in str(error.value)


def test_a_token_is_not_sent_unencrypted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not sent to http://mirror unencrypted"):
        hub_access.token(Hub(), tmp_path, "http://mirror", secret(tmp_path))
    assert hub_access.token(Hub(), tmp_path, "http://127.0.0.1:1", secret(tmp_path)) == "hf_x"


def test_a_token_that_others_can_read_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub_access.token(Hub(), tmp_path, "https://h", secret(tmp_path, mode=0o644))
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["hub.example.org", "https://user:secret@hub", "ftp://hub"])
def test_a_hub_in_the_environment_must_be_an_address_without_a_password(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(InputError, match="HF_ENDPOINT") as error:
        hub_access.endpoint(Hub())
    assert "secret" not in str(error.value)


def test_the_record_keeps_what_it_knew(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    models_lock.record(path, "a", {"source": "hub"})
    models_lock.record(path, "b", {"source": "archive"})
    assert {name: entry["source"] for name, entry in models_lock.read(path).items()} == {"a": "hub", "b": "archive"}
    shutil.copy(path, tmp_path / "broken")
    (tmp_path / "broken").write_text("[")
    with pytest.raises(StackError, match="not a record"):
        models_lock.read(tmp_path / "broken")


def test_a_meter_tells_how_far_it_is() -> None:
    meter = Meter(total=4 * 2**30, have=2**30)
    assert meter.line().startswith("1.0 GiB of 4.0 GiB (25 %), 0.0 MiB/s")
    meter.add(2**30)
    assert "(50 %)" in meter.line()
    assert meter.line().endswith(" s left")
    assert gib(3 * 2**19) == "1.5 MiB"


def test_the_first_failure_stops_the_others_and_is_the_one_that_is_told() -> None:
    meter = Meter(total=10)

    def fails() -> None:
        raise OSError("first")

    def goes_on() -> None:
        while True:
            meter.add(0)

    with pytest.raises(OSError, match="first"):
        side_by_side([goes_on, fails], 2, meter, lambda _: None)
    with pytest.raises(StoppedError):
        meter.add(1)
