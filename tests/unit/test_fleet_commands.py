"""plan.py, place.py and render.py of a fleet, run in this process on files of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stack import fleet_lock
from unit.conftest import WriteStack
from unit.test_scripts import run

HOSTS = """
hosts:
  - {{name: front, roles: [gateway, observability], address: 10.0.0.1}}
  - {{name: a, roles: [engines], address: 10.0.0.11}}
{more}"""
MORE = "  - {name: b, roles: [engines], address: 10.0.0.12}\n"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    write_stack: WriteStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a script on a stack of three replicas and a hosts file; more: further hosts."""
    stack = write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {toy: true}, replicas: 3}]\n"
        f"paths: {{state: {tmp_path}/state, build: {tmp_path}/build}}\n"
    )

    def call(name: str, *arguments: str, more: str = "") -> tuple[int, str, str]:
        (tmp_path / "hosts.yaml").write_text(HOSTS.format(more=more))
        return run(monkeypatch, capsys, name, str(stack), "--hosts", str(tmp_path / "hosts.yaml"), *arguments)

    return call


def test_one_host_of_a_fleet_is_planned_with_all_the_others(command: Command) -> None:
    code, out, _ = command("plan.py", "--json", more=MORE)
    assert code == 0
    every = {plan["host"]: plan for plan in json.loads(out)["plans"]}
    assert list(every) == ["front", "a", "b"]
    _, out, _ = command("plan.py", "--host", "front", "--json", more=MORE)
    assert json.loads(out)["plans"] == [every["front"]]
    assert len(every["front"]["fleet"]["servers"]) == 3
    code, _, err = command("plan.py", "--host", "c", more=MORE)
    assert code == 2
    assert "no host 'c'; there are: front, a, b" in err


def test_the_plan_says_who_answers_whom(command: Command) -> None:
    _, out, _ = command("plan.py")
    front, _, serving = out.partition("host a,")
    assert "10.0.0.1 of a fleet: gateway, observability" in front
    assert "engine-toy-2" in front
    assert "10.0.0.11:18002" in serving


def test_places_are_written_once_and_a_host_more_moves_none(command: Command, tmp_path: Path) -> None:
    lock = tmp_path / "hosts.lock"
    code, out, _ = command("place.py", "--json")
    assert code == 0
    assert json.loads(out) == {"added": [f"engine-toy-{n}" for n in range(3)], "removed": [], "moved": []}
    first = fleet_lock.load(lock)
    assert {place.host for place in first.values()} == {"a"}
    written = lock.stat().st_mtime_ns
    _, out, _ = command("place.py", more=MORE)
    assert out.endswith("hosts.lock: unchanged\n")
    assert lock.stat().st_mtime_ns == written
    code, out, _ = command("place.py", "--anew", more=MORE)
    assert code == 0
    assert "moved    engine-toy-1 on b" in out
    assert fleet_lock.load(lock)["engine-toy-0"] == first["engine-toy-0"]


def test_a_plan_writes_no_places(command: Command, tmp_path: Path) -> None:
    for name in ("plan.py", "render.py"):
        assert command(name)[0] == 0
    assert not (tmp_path / "hosts.lock").exists()
    assert (tmp_path / "build/a/host/nftables/vllm-onprem.nft").is_file()


def test_a_damaged_lock_is_bad_input(command: Command, tmp_path: Path) -> None:
    (tmp_path / "hosts.lock").write_text("engines: [a]\n")
    code, _, err = command("plan.py")
    assert code == 2
    assert "hosts.lock: engines:" in err


def test_hosts_for_themselves_have_no_places(command: Command, tmp_path: Path) -> None:
    code, _, err = command("place.py", more="  - {name: a b}\n")
    assert code == 2
    (tmp_path / "alone.yaml").write_text("hosts: [{name: a}]\n")
    code, _, err = command("place.py", "--hosts", str(tmp_path / "alone.yaml"))
    assert code == 2
    assert "only a fleet has a lock" in err
