"""A host of a fleet out of service for another driver, and back: the real hooks on stand-ins for hosts' programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plays.playing import ANSIBLE
from plays.standins import NEW, Fleet, Ran

HOOKS = ANSIBLE / "playbooks/hooks"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def away(fleet: Fleet, fails: dict[str, str] | None = None, host: str = "a", **variables: Any) -> Ran:
    """What upgrade_driver.yml does around the upgrade, without what changes this machine itself."""
    (fleet.folder / "library").mkdir(exist_ok=True)
    answers: dict[str, dict[str, Any]] = {"systemd_service": {}, "host_survey": {"survey": {"gpu_processes": []}}}
    for module, answer in answers.items():
        text = f"import json, sys\nsys.stdin.read()\nprint(json.dumps({{'changed': False, **{answer!r}}}))\n"
        (fleet.folder / "library" / f"{module}.py").write_text(f"#!/usr/bin/python3\n# WANT_JSON\n{text}")
    hooks = {}
    for name in ("drain", "readmit"):
        text = (HOOKS / f"{name}.yml").read_text().replace("ansible.builtin.systemd_service", "systemd_service")
        (fleet.folder / f"{name}.yml").write_text(text)
        hooks[name] = {"ansible.builtin.include_tasks": str(fleet.folder / f"{name}.yml")}
    play = {
        "hosts": host,
        "gather_facts": False,
        "vars": {"hook_release": "{{ stack_root }}/current", "provision_lock": {"driver": {"version": "1"}}},
        "tasks": [hooks["drain"], {"ansible.builtin.command": {"argv": [_program(fleet, host), "upgrade.py"]}},
                  hooks["readmit"]],
    }  # fmt: skip
    return fleet.play([play], fails, **variables)


def _program(fleet: Fleet, host: str) -> str:
    return str(fleet.folder / host / "current/.venv/bin/python")


def test_its_replicas_leave_the_pools_of_every_gateway_and_come_back_when_it_is_proven(fleet: Fleet) -> None:
    ran = away(fleet)
    assert ran.code == 0, ran.out
    calls = [call for call in ran.calls if "releases.py" not in call]
    assert calls == [
        *(f"{gateway}: {NEW} pool.py out --seconds=7200 e-a" for gateway in ("front", "second")),
        f"a: {NEW} down.py --finish=600",
        f"a: {NEW} upgrade.py",
        f"a: {NEW} fleet_host.py --host=a prepare --again",
        f"a: {NEW} activate.py --host=a --rollback --json",
        *(f"{gateway}: {NEW} pool.py back e-a" for gateway in ("front", "second")),
    ]
    assert not (fleet.folder / "a/state/deploy-lease.json").exists()


def test_a_host_whose_replica_nobody_could_stand_in_for_stays_in_service(fleet: Fleet) -> None:
    ran = away(fleet, {"second: new pool.py out": "no other replica serves toy now"})
    assert ran.code != 0
    assert "a stays in service: no other replica serves toy now" in ran.told
    assert ran.named("down.py", "upgrade.py") == []
    assert ran.named("pool.py")[-2:] == [f"{gateway}: {NEW} pool.py back e-a" for gateway in ("front", "second")]
    assert not (fleet.folder / "a/state/deploy-lease.json").exists()


def test_a_host_that_is_not_proven_stays_out_and_the_fleet_is_held(fleet: Fleet) -> None:
    ran = away(fleet, {"activate.py": "a replica does not answer"})
    assert ran.code != 0
    assert [call for call in ran.named("pool.py") if " back " in call] == []
    assert (fleet.folder / "a/state/deploy-lease.json").exists()


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        ({"a": ["engines"], "gone": ["gateway"], "front": ["observability"]}, "a serves behind gone"),
        ({"a": ["engines", "gateway"], "front": ["observability"]}, "a is the only gateway of its fleet"),
    ],
)
def test_a_fleet_that_cannot_be_told_is_refused(fleet: Fleet, hosts: dict[str, list[str]], says: str) -> None:
    fleet.says["a"]["releases.py"]["fleet"]["hosts"] = hosts
    ran = away(fleet)
    assert ran.code != 0
    assert says in ran.told
    assert ran.named("pool.py", "down.py") == []


def test_a_host_that_is_alone_is_drained_as_before(fleet: Fleet) -> None:
    fleet.says["a"]["releases.py"]["fleet"] = None
    ran = away(fleet)
    assert ran.code == 0, ran.out
    assert [call for call in ran.calls if "releases.py" not in call] == [
        f"a: {NEW} down.py --drain=600",
        f"a: {NEW} upgrade.py",
        f"a: {NEW} up.py --json",
    ]
