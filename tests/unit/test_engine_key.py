"""The engines' key: made once, handed out in copies, rotated in steps that work together in any order."""

from __future__ import annotations

import json
import os
import stat
from itertools import pairwise
from pathlib import Path
from typing import cast

import docker
import pytest

from stack import certificates, kept_state
from stack.api_keys import ensure_keys, key_file
from stack.config.gateway import Gateway
from stack.errors import InputError
from stack.gateway_state import GatewayState
from stack.render import render
from stack.secrets import copies, engine_key
from stack.secrets.check import check, tighten
from stack.secrets.copies import copies_of, hand_out, keep_only
from stack.secrets.engine_key import EngineKeys, begin
from stack.yaml_input import parsed
from stacks import ROOT
from unit import given

NO_DOCKER = cast(docker.DockerClient, None)


def steps() -> list[EngineKeys]:
    """Before a rotation, and each of its steps."""
    found = [engine_key.new_keys()]
    found.append(begin(found[0]))
    while following := found[-1].next_step():
        found.append(following)
    return found


@pytest.fixture
def as_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies belong to whoever runs the tests: no test needs root or Docker for them."""
    monkeypatch.setattr(copies, "ENGINE_UID", os.geteuid())
    monkeypatch.setattr(copies, "HAPROXY_UID", os.geteuid())


def test_it_is_made_once_private_and_long(tmp_path: Path) -> None:
    keys = engine_key.ensure(tmp_path)
    path = engine_key.key_file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert (keys.accepts, keys.rotating, len(keys.sends) > 64) == ((keys.sends,), False, True)
    assert engine_key.ensure(tmp_path) == keys == engine_key.load(tmp_path)
    assert engine_key.new_keys() != engine_key.new_keys()


def test_a_rotation_has_three_steps_and_ends_without_the_old_key() -> None:
    first, *rest = steps()
    assert [keys.step for keys in rest] == [1, 2, 3]
    assert first.sends not in rest[-1].accepts
    assert rest[-1].next_step() is None


def test_whatever_of_two_neighbouring_steps_runs_where_no_request_is_refused() -> None:
    for before, after in pairwise(steps()):
        for haproxy in (before, after):
            for engine in (before, after):
                assert haproxy.sends in engine.accepts


def test_a_step_that_was_skipped_would_be_seen_by_the_test_above() -> None:
    first, _, _, last = steps()
    assert first.sends not in last.accepts


def test_every_step_is_kept_and_read_back(tmp_path: Path) -> None:
    for keys in steps():
        engine_key.save(tmp_path, keys)
        assert engine_key.load(tmp_path) == keys


def test_the_engines_copy_is_yaml_for_vllm_and_json_for_the_health_check() -> None:
    keys = steps()[1]
    assert parsed(keys.engine_copy()) == json.loads(keys.engine_copy()) == {"api-key": list(keys.accepts)}


def test_haproxys_copy_is_a_map_with_one_entry() -> None:
    keys = steps()[1]
    assert keys.haproxy_copy().decode().split() == ["engine", keys.sends]


def test_copies_are_private_named_by_their_content_and_made_again(tmp_path: Path, as_owner: None) -> None:
    every = copies_of(engine_key.ensure(tmp_path))
    hand_out(tmp_path, every, "nginx", NO_DOCKER)
    paths = [copy.path(tmp_path) for copy in every]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o400}
    assert len({path.stem for path in paths}) == 2
    paths[0].unlink()
    paths[0].mkdir()  # Docker makes a folder of a file to mount that is missing
    paths[1].chmod(0o600)
    paths[1].write_bytes(b"noise")
    hand_out(tmp_path, every, "nginx", NO_DOCKER)
    assert [path.read_bytes() for path in paths] == [copy.content for copy in every]


def test_old_copies_go_when_they_are_not_wanted_any_more(tmp_path: Path, as_owner: None) -> None:
    every = [copies_of(keys) for keys in steps()]
    for some in every:
        hand_out(tmp_path, some, "nginx", NO_DOCKER)
    keep_only(tmp_path, every[-1])
    left = {path for folder in ("engine", "haproxy") for path in (tmp_path / "secrets" / folder).iterdir()}
    assert left == {copy.path(tmp_path) for copy in every[-1]}


def test_the_rendered_tree_names_the_copies_and_holds_no_value(tmp_path: Path, as_owner: None) -> None:
    plan = given.plan(given.config(given.toy(replicas=2)))
    for keys in steps():
        engine_key.save(tmp_path, keys)
        tree = render(plan, kept_state.load(tmp_path, [], None), ROOT)
        everything = b"".join(tree.values())
        assert not [key for key in {keys.sends, *keys.accepts} if key.encode() in everything]
        engines, haproxy = (copy.path(tmp_path) for copy in copies_of(keys))
        compose = parsed(tree["compose.yaml"])
        (secret,) = compose["secrets"].values()
        assert secret["file"] == f"${{STATE_DIR:?}}/secrets/engine/{engines.name}"
        for engine in plan.engines:
            (mount,) = compose["services"][engine.name]["secrets"]
            assert mount["source"] in compose["secrets"]
            assert f"/run/secrets/{mount['target']}" == engine.argv[engine.argv.index("--config") + 1]
        assert f"map(/run/secrets/{haproxy.name})" in tree["haproxy/haproxy.cfg"].decode()


def test_each_step_changes_what_it_is_about_and_nothing_else(tmp_path: Path) -> None:
    plan = given.plan(given.config(given.toy(replicas=2)))
    trees = []
    for keys in steps():
        engines, haproxy = engine_key.names(keys)
        trees.append(render(plan, GatewayState({}, engine_keys=engines, haproxy_key=haproxy), ROOT))
    changed = [{path for path in old if old[path] != new[path]} - {"manifest.json"} for old, new in pairwise(trees)]
    assert changed == [{"compose.yaml"}, {"haproxy/haproxy.cfg"}, {"compose.yaml"}]


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", '{"sends": "a"}', '{"sends": "a", "accepts": 3, "rotating": false}',
        '{"sends": "a", "accepts": ["b"], "rotating": false}', '{"sends": 1, "accepts": [1], "rotating": false}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    path = engine_key.key_file(tmp_path)
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError) as error:
        engine_key.load(tmp_path)
    assert error.value.exit_code == 2
    assert str(path) in str(error.value)


def test_every_unusable_secret_is_told_at_once(tmp_path: Path) -> None:
    ensure_keys(tmp_path, ["alice", "bob", "carol"])
    pair, _ = certificates.ensure(tmp_path, Gateway(), ROOT)
    check(tmp_path, ["alice", "bob", "carol", "not-made-yet"], Gateway(), ROOT)
    bad = [key_file(tmp_path, "alice"), key_file(tmp_path, "bob"), tmp_path / "secrets/clients.json",
           engine_key.key_file(tmp_path), certificates.private_key_file(tmp_path, pair)]  # fmt: skip
    for path in bad:
        path.unlink(missing_ok=True)
        path.write_text("noise")
    bad[1].unlink()
    bad[1].mkdir()
    with pytest.raises(InputError) as error:
        check(tmp_path, ["alice", "bob", "carol"], Gateway(), ROOT)
    assert given.wheres(error.value) == [str(path) for path in bad]


def test_a_stack_without_secrets_yet_has_no_problem(tmp_path: Path) -> None:
    check(tmp_path, ["alice"], Gateway(), ROOT)
    tighten(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_only_this_host_reads_is_closed_again(tmp_path: Path, as_owner: None) -> None:
    ensure_keys(tmp_path, ["alice"])
    hand_out(tmp_path, copies_of(engine_key.ensure(tmp_path)), "nginx", NO_DOCKER)
    secrets = tmp_path / "secrets"
    for path in (key_file(tmp_path, "alice"), engine_key.key_file(tmp_path)):
        path.chmod(0o644)
    for folder in (secrets, secrets / "api-keys"):
        folder.chmod(0o755)
    tighten(tmp_path)
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    files = {path: mode for path, mode in modes.items() if (tmp_path / path).is_file()}
    assert set(files.values()) == {0o400}
    assert [modes[path] for path in ("secrets", "secrets/api-keys", "secrets/engine", "secrets/haproxy")] == [
        0o700,
        0o700,
        0o755,
        0o755,
    ]
