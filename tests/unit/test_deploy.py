"""A stack on a host of its own: the release that is sent, what the host says of itself, and what would change there."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stack import cordons, drains
from stack.config.fields import FilePath
from stack.config.folders import state_dir
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.deploy import host_state, release
from stack.deploy.host_stack import PATH_KEYS, host_stack
from stack.deploy.host_state import HostState
from stack.deploy.shipped import mended_on_failure, refuse_other
from stack.effects import effects
from stack.errors import InputError, StackError
from stack.hardware import Host, save_hosts
from stack.inputs import ROOT, Inputs, add_arguments, gather
from stack.models.toy import make_toy_model
from stack.prepare import make_secrets
from stack.tree import read_tree, write_tree
from stack.yaml_input import parsed
from unit import given
from unit.conftest import WriteStack

TOY = "models: [{served_model_name: toy, source: {toy: true}, replicas: 2}]\nimages: {source: build}\n"
GPU = "models: [{served_model_name: m, source: {path: %s}, %s}]\nimages: {source: registry}\ndevice: cuda\n"


def file_keys(section: type[BaseModel]) -> set[str]:
    """Keys of a section, and of those below it, that hold the path of a file or folder."""
    found: set[str] = set()
    for name, each in section.model_fields.items():
        text = str(each.rebuild_annotation())
        if str(FilePath) in text or "_path" in text:
            found.add(name)
        for part in (each.annotation, *getattr(each.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= file_keys(part)
    return found


def test_every_key_that_names_a_file_is_known() -> None:
    assert file_keys(StackConfig) == PATH_KEYS | {"state", "build", "rules"}


def test_relative_paths_start_at_the_hosts_state() -> None:
    found = host_stack(
        {
            "models": [{"source": {"path": "models/x"}, "lora_adapters": [{"source": {"archive": "/srv/a.tar"}}]}],
            "gateway": {"tls": {"certificate": "tls/c.pem", "key": "/etc/k.pem"}},
            "observability": {"rules": ["ours/rules.yaml"], "receivers": [{"email": {"password_file": "secrets/p"}}]},
            "paths": {"state": ".state"},
        },
        "/var/lib/s",
    )
    assert found["models"][0]["source"]["path"] == "/var/lib/s/models/x"
    assert found["models"][0]["lora_adapters"][0]["source"]["archive"] == "/srv/a.tar"
    assert found["gateway"]["tls"] == {"certificate": "/var/lib/s/tls/c.pem", "key": "/etc/k.pem"}
    assert found["observability"]["receivers"][0]["email"]["password_file"] == "/var/lib/s/secrets/p"
    assert found["observability"]["rules"] == ["rules/rules.yaml"]
    assert found["paths"] == {"state": "/var/lib/s", "build": "/var/lib/s/build"}


def test_an_absolute_state_folder_of_the_stack_file_stays() -> None:
    assert host_stack({"paths": {"state": "/data/s"}}, "/var/lib/s")["paths"]["state"] == "/data/s"


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yaml"
    save_hosts(path, (Host(name="h1"), Host(name="h2")))
    return path


@pytest.fixture
def released(write_stack: WriteStack, tmp_path: Path, hosts: Path) -> Callable[[str], dict[str, release.File]]:
    """Makes the release of h1 for a stack file; the host's state is in a scratch folder."""

    def make(text: str = f"device: cpu\n{TOY}", host: str = "h1", images: str | None = None) -> dict[str, release.File]:
        return release.files_of(ROOT, write_stack(text), hosts, host, str(tmp_path / "state"), images)

    return make


Released = Callable[..., dict[str, release.File]]


def test_a_release_holds_the_program_and_this_hosts_files(released: Released) -> None:
    files = released()
    assert {"scripts/up.py", "templates/.env.j2", "compose/images.yaml", "stack.yaml"} <= files.keys()
    assert [path for path in files if ".pyc" in path or path.startswith(("tests", "ansible", ".venv"))] == []
    assert [each["name"] for each in parsed(files["hosts.yaml"].content)["hosts"]] == ["h1"]
    assert files["scripts/up.py"].mode == 0o755


def test_its_id_is_of_its_content(released: Released) -> None:
    first = release.release_id(released())
    assert release.release_id(released()) == first
    assert release.release_id(released(host="h2")) != first
    assert release.release_id(released(f"device: cpu\nname: other\n{TOY}")) != first


def test_its_archive_is_the_same_each_time_and_holds_modes(released: Released) -> None:
    files = released()
    packed = release.archive(files)
    assert release.archive(files) == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        modes = {entry.name: entry.mode for entry in tar}
    assert modes == {path: file.mode for path, file in files.items()}


def test_a_host_that_the_hosts_file_does_not_name_is_refused(released: Released) -> None:
    with pytest.raises(InputError, match="no host 'h3'"):
        released(host="h3")


def test_a_host_that_gathers_has_its_images_from_elsewhere(released: Released) -> None:
    text = f"device: cpu\n{TOY.replace('build', 'archive, archive: /srv/images.tar')}"

    def images(source: str) -> dict[str, Any]:
        found = parsed(released(text, images=source)["stack.yaml"].content)["images"]
        return {"source": found["source"], "archive": found["archive"]}

    assert images("registry") == {"source": "registry", "archive": None}
    assert images("archive") == {"source": "archive", "archive": "/srv/images.tar"}


def test_what_a_host_installs_is_the_lock_without_ansible() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    names = {line.split("==")[0] for line in release.for_hosts(lock).splitlines() if "==" in line}
    every = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    assert every - names == {"ansible", "ansible-core"}
    assert release.for_hosts(lock).count("--hash") > 100


def test_rule_files_travel_with_the_release(released: Released, tmp_path: Path) -> None:
    rules = tmp_path / "ours.yaml"
    rules.write_text("groups: [{name: g, rules: []}]\n")
    files = released(f"device: cpu\n{TOY}observability: {{rules: [{rules}]}}\n")
    assert files["rules/ours.yaml"].content == rules.read_bytes()


@pytest.fixture
def box(released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Renders a stack file for h1 twice: elsewhere with what h1 says of itself, and on h1."""
    monkeypatch.setattr("stack.deploy.host_state.service_hashes", lambda files: {})

    def gathered(folder: Path, facts: Path | None) -> Inputs:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parser.parse_args([str(folder / "stack.yaml"), "--hosts", str(folder / "hosts.yaml")])
        arguments.facts = facts
        return gather(arguments)

    def both(text: str, prepare: Callable[[Path], None] = lambda state: None) -> tuple[dict[str, bytes], ...]:
        folder = tmp_path / "release"
        release.write(released(text), folder)
        config = load_config(folder / "stack.yaml")
        state = state_dir(config, ROOT)
        state.mkdir(parents=True)
        make_secrets(config, state)
        prepare(state)
        facts = tmp_path / "facts.json"
        facts.write_text(json.dumps(host_state.tell(config, "h1", ROOT, "stack.yaml")))
        there = gathered(folder, None)
        here_tree = there.render(there.plans()[0])
        away = tmp_path / "state-is-elsewhere"
        (tmp_path / "state").rename(away)  # the controller has none of it
        elsewhere = gathered(folder, facts)
        return elsewhere.render(elsewhere.plans()[0]), here_tree

    return both


def test_rendered_elsewhere_with_the_hosts_state_it_is_what_the_host_renders(box: Callable[..., Any]) -> None:
    def decided(state: Path) -> None:
        drains.save(state, ["engine-toy-1"])
        (state / "secrets/clients.json").write_text(
            json.dumps({"late": {"models": None, "keys": [{"id": "aa", "sha256": "aa" * 32, "made": "x"}]}})
        )

    elsewhere, there = box(f"device: cpu\n{TOY}", decided)
    assert elsewhere == there
    assert b"none-yet" not in b"".join(elsewhere.values())
    assert b"aa" * 32 in elsewhere["nginx/keys.json"]


def test_what_auto_means_is_worked_out_elsewhere_from_the_files_on_the_host(
    box: Callable[..., Any], tmp_path: Path, hosts: Path
) -> None:
    save_hosts(hosts, (Host(name="h1", gpus=given.gpus(4)),))
    make_toy_model(tmp_path / "model")
    text = GPU % (tmp_path / "model", "replicas: auto, max_model_len: auto")
    elsewhere, there = box(text, lambda state: cordons.save(state, [given.gpus(4)[1].uuid]))
    assert elsewhere == there
    plan = json.loads(elsewhere["plan.json"])
    assert len(plan["engines"]) == 3
    assert [engine["gpus"] for engine in plan["cordoned"]] == [[given.gpus(4)[1].uuid]]


def test_no_secret_is_in_what_a_host_says(box: Callable[..., Any], tmp_path: Path) -> None:
    box(f"device: cpu\n{TOY}")
    said = (tmp_path / "facts.json").read_text()
    secrets = tmp_path / "state-is-elsewhere/stacks/vllm-onprem/secrets"
    values = [path.read_text().strip() for path in (secrets / "api-keys").iterdir()]
    values.append(json.loads((secrets / "engine-key.json").read_text())["sends"])
    assert len(values) == 3
    assert [value for value in values if value in said] == []


def test_a_host_that_has_nothing_yet_says_nothing(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text("{}")
    assert host_state.load(facts, given.config(given.toy())) == HostState()


def test_a_damaged_answer_is_bad_input(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text('{"format": 1}')
    with pytest.raises(InputError, match="not what a host says"):
        host_state.load(facts, given.config(given.toy()))


@pytest.mark.parametrize(
    ("changed", "before", "after", "expected"),
    [
        ("nginx/x", {"nginx": "1"}, {"nginx": "1"}, {"nginx": "reload"}),
        ("prometheus/rules/x.yaml", {"nginx": "1"}, {"nginx": "1"}, {"prometheus": "reload"}),
        ("compose.yaml", {"engine-a-0": "1"}, {"engine-a-0": "2"}, {"engine-a-0": "recreate"}),
        ("compose.yaml", {"engine-a-0": "1"}, {}, {"engine-a-0": "remove"}),
        ("plan.json", {"nginx": "1"}, {"nginx": "1"}, {}),
        ("nginx/x", {}, {"nginx": "1"}, {"nginx": "create"}),
    ],
)
def test_effects_are_told_by_part(
    changed: str, before: dict[str, str], after: dict[str, str], expected: dict[str, str]
) -> None:
    assert effects({changed: "a", "same": "b"}, {changed: "c", "same": "b"}, before, after) == expected


def test_a_tree_that_is_not_rendered_here_is_refused(tmp_path: Path) -> None:
    files = {"a": b"1", "manifest.json": b'{"files": [{"path": "a"}]}'}
    write_tree(tmp_path, files)
    refuse_other(tmp_path, files)
    with pytest.raises(StackError, match="different are a"):
        refuse_other(tmp_path, {**files, "a": b"2"})


def test_what_failed_is_not_kept_as_sent(tmp_path: Path) -> None:
    live, shipped = tmp_path / "live", tmp_path / "shipped"
    listing = b'{"files": [{"path": "a"}]}'
    write_tree(live, {"a": b"runs", "manifest.json": listing})
    write_tree(shipped, {"a": b"broken", "manifest.json": listing})
    with pytest.raises(StackError), mended_on_failure(shipped, live):
        raise StackError("refused")
    assert read_tree(shipped)["a"] == b"runs"
    shutil.rmtree(live)
    with pytest.raises(StackError), mended_on_failure(shipped, live):
        raise StackError("refused")
    assert not shipped.exists()
