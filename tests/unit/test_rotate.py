"""A rotation that ends anywhere is finished by the next, and nothing that may run meanwhile refuses a request.

What is applied is kept in memory here; tests/integration/test_secrets.py rotates on the running stack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import docker
import pytest

from stack.apply import Before
from stack.errors import InputError, StackError
from stack.gateway_state import GatewayState
from stack.inputs import Place
from stack.plan.types import Plan
from stack.render import render
from stack.secrets import copies, engine_key, rotate
from stack.secrets.copies import copies_of, hand_out
from stack.secrets.engine_key import EngineKeys
from stacks import ROOT
from unit import given

CLIENT = cast(docker.DockerClient, None)


class Host:
    """A host whose stack is the tree that was applied last. ends: called before each thing that is done."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ENGINE_UID", "HAPROXY_UID"):
            monkeypatch.setattr(copies, name, os.geteuid())
        monkeypatch.setattr(rotate, "WATCH_UID", os.geteuid())
        self.place = Place("vllm-onprem", tmp_path)
        self.plan = given.plan(given.config(given.toy(replicas=2)))
        self.running: dict[str, tuple[str, str]] = {"nginx": ("id", "then")}
        self.ends: Callable[[str], None] = lambda _: None
        self.applied: list[EngineKeys] = []
        self.refused = False
        keys = engine_key.ensure(tmp_path)
        hand_out(tmp_path, copies_of(keys), "nginx", CLIENT)
        engines, haproxy = engine_key.names(keys)
        self.files = render(self.plan, GatewayState({}, engine_keys=engines, haproxy_key=haproxy), ROOT)
        monkeypatch.setattr("stack.secrets.rotate.adjust.applied", lambda _: self.plan)
        monkeypatch.setattr("stack.secrets.rotate.apply.look", lambda *_: Before(self.files, self.running, proven=True))
        monkeypatch.setattr("stack.secrets.rotate.refuse_downtime", self.refuse_downtime)
        monkeypatch.setattr("stack.secrets.rotate.validate", lambda *_: self.ends("validate"))
        monkeypatch.setattr("stack.secrets.rotate.apply_and_prove", self.apply)
        monkeypatch.setattr("stack.secrets.rotate.time.sleep", lambda _: None)
        monkeypatch.setattr("stack.secrets.rotate.engine_key.save", self.saving(engine_key.save))

    def saving(self, save: Callable[[Path, EngineKeys], None]) -> Callable[[Path, EngineKeys], None]:
        def saved(state: Path, keys: EngineKeys) -> None:
            self.ends("save")
            save(state, keys)

        return saved

    def refuse_downtime(self, *_: Any) -> None:
        if self.refused:
            raise InputError("models", "no spare")

    def apply(self, plan: Plan, state: Path, files: Mapping[str, bytes], *_: object) -> list[str]:
        keys = engine_key.load(state)
        assert keys
        assert all(copy.path(state).exists() for copy in copies_of(keys))
        names = engine_key.names(keys)
        assert names[0] in files["compose.yaml"].decode()
        assert names[1] in files["haproxy/haproxy.cfg"].decode()
        self.applied.append(keys)  # from here on parts may run it
        self.ends("apply")
        self.files = dict(files)
        return []

    def rotate(self) -> str:
        return rotate.rotate(self.place, "stack.yaml", CLIENT)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def current(host: Host) -> EngineKeys:
    keys = engine_key.load(host.place.state)
    assert keys
    return keys


def test_it_takes_three_steps_and_leaves_nothing_of_the_old_key(host: Host) -> None:
    old = current(host)
    assert "new key" in host.rotate()
    assert [keys.step for keys in host.applied] == [1, 2, 3]
    new = current(host)
    assert (new.rotating, new.accepts) == (False, (new.sends,))
    assert old.sends not in new.accepts
    left = [path for folder in ("engine", "haproxy") for path in (host.place.state / "secrets" / folder).iterdir()]
    assert not [path for path in left if old.sends in path.read_text()]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StackError("an engine did not come up")])
@pytest.mark.parametrize("at", range(10))
def test_wherever_it_ends_the_next_one_finishes_it(host: Host, at: int, error: BaseException) -> None:
    first, left = current(host), at

    def ends(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise error

    host.ends = ends
    with pytest.raises(type(error)):
        host.rotate()
    host.ends = lambda _: None
    host.rotate()
    last = current(host)
    assert (last.rotating, last.accepts, last.sends != first.sends) == (False, (last.sends,), True)
    for before, after in pairwise([first, *host.applied]):
        assert before.sends in after.accepts
        assert after.sends in before.accepts


def test_a_tenth_ending_would_be_one_too_many(host: Host) -> None:
    seen: list[str] = []
    host.ends = seen.append
    host.rotate()
    assert len(seen) == 10, seen


def test_a_gap_is_refused_before_anything_is_written(host: Host) -> None:
    before = current(host)
    host.refused = True
    with pytest.raises(InputError, match="no spare"):
        host.rotate()
    assert (current(host), host.applied) == (before, [])


def test_another_version_is_applied_by_up_and_not_on_the_way(host: Host) -> None:
    before = current(host)
    host.files = {**host.files, "compose.yaml": b"another"}
    with pytest.raises(InputError, match="`make up` first"):
        host.rotate()
    assert (current(host), host.applied) == (before, [])


def test_a_stopped_stack_gets_a_new_key_at_once(host: Host) -> None:
    before = current(host)
    host.running = {}
    assert "make up" in host.rotate()
    assert current(host).sends != before.sends
    assert host.applied == []
    assert all(copy.path(host.place.state).exists() for copy in copies_of(current(host)))


def test_without_a_key_there_is_nothing_to_rotate(host: Host) -> None:
    engine_key.key_file(host.place.state).unlink()
    with pytest.raises(InputError, match="make up"):
        host.rotate()


def test_what_waits_in_a_queue_is_let_through_before_the_old_key_goes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = tuple(replace(pool, queue_timeout=7) for pool in host.plan.pools)
    host.plan = replace(host.plan, pools=pools)
    slept: list[tuple[float, int]] = []
    monkeypatch.setattr("stack.secrets.rotate.time.sleep", lambda seconds: slept.append((seconds, len(host.applied))))
    engines, haproxy = engine_key.names(current(host))
    host.files = render(host.plan, GatewayState({}, engine_keys=engines, haproxy_key=haproxy), ROOT)
    host.rotate()
    assert slept == [(7, 2)]
