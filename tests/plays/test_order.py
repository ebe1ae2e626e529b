"""The order in which the playbook changes engines, by Ansible itself on stand-ins for the programs of the hosts.

What is called where, what happens when a step fails, and that one deploy at a time holds the fleet. Needs no Docker.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from plays.playing import at_once, play
from plays.standins import Ran

# host -> its roles, and whether it has a tree of the stack by now
HOSTS: dict[str, tuple[str, bool]] = {
    "front": ("gateway", True),
    "second": ("gateway", True),
    "new": ("gateway", False),
    "watching": ("observability", True),
    "a": ("engines", True),
    "b": ("engines", True),
}
OUT_OF_REACH = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
# Writes down what it was called with, and fails where the file `fails` says so; a replica `mute` answers no gateway.
PROGRAM = """\
#!{python}
import json, sys
line = "{host}: " + " ".join(word for word in sys.argv[1:] if not word.endswith(".yaml"))
line = line.replace("{scripts}/", "")
with open("{log}", "a") as file:
    file.write(line + "\\n")
if line in open("{fails}").read().splitlines():
    sys.exit("it does not")
print(json.dumps({{"out": {{"mute": "it is mute"}} if line.endswith("pool.py back mute") else {{}}}}))
"""


class Bed:
    """Hosts of a fleet as folders of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.fails = folder, folder / "log", folder / "fails"
        for host in HOSTS:
            program = folder / host / "current/.venv/bin/python"
            program.parent.mkdir(parents=True)
            scripts = folder / host / "current/scripts"
            program.write_text(
                PROGRAM.format(python=sys.executable, host=host, scripts=scripts, log=self.log, fails=self.fails)
            )
            program.chmod(0o755)

    def facts(self, host: str) -> dict[str, Any]:
        """What the plays before have learned of a host."""
        current = self.folder / host / "current"
        act = [str(current / ".venv/bin/python"), str(current / "scripts/fleet_host.py")]
        roles, runs = HOSTS[host]
        pool = [act[0], str(current / "scripts/pool.py")] if runs and roles != "engines" else []
        return {"__fleet_at": {"host": host, "act": act, "pool": pool}}

    def play(
        self,
        batches: Sequence[Sequence[Mapping[str, Any]]],
        fails: Sequence[str] = (),
        lost: str = "",
        **variables: Any,
    ) -> Ran:
        """Change engines in these batches; a program whose call is among `fails` fails. lost: a host out of reach."""
        self.log.write_text("")
        self.fails.write_text("\n".join(fails))
        groups = {
            f"fleet_{role}": {"hosts": dict.fromkeys(name for name, (roles, _) in HOSTS.items() if role in roles)}
            for role in ("engines", "gateway", "observability")
        }
        inventory: dict[str, Any] = {
            **groups,
            "deploy_fleet": {
                "hosts": {host: self.facts(host) | (OUT_OF_REACH if host == lost else {}) for host in HOSTS}
            },
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": sys.executable,
                    "stack_state": str(self.folder / "state"),
                    "stack_allow_downtime": False,
                    "rendered": {"stdout": json.dumps({"batches": list(batches), "hosts": {}})},
                    **variables,
                }
            },
        }
        parts = [
            {"ansible.builtin.set_fact": {"__fleet_rendered": "{{ rendered }}"}},
            {"ansible.builtin.import_role": {"name": "fleet", "tasks_from": "hold"}},
            {"ansible.builtin.import_role": {"name": "fleet", "tasks_from": "engines"}},
            {"ansible.builtin.import_role": {"name": "fleet", "tasks_from": "let_go"}},
        ]
        play_of_engines = {
            "hosts": "deploy_fleet", "gather_facts": False, "any_errors_fatal": True, "tasks": parts
        }  # fmt: skip
        program = f"{self.folder}/{{{{ inventory_hostname }}}}/current/.venv/bin/python"
        tasks = [{"name": "After", "ansible.builtin.command": {"argv": [program, "after"]}}]
        after = {"hosts": "fleet_gateway", "gather_facts": False, "tasks": tasks}
        return Ran(*play([play_of_engines, after], inventory, self.folder), self.log.read_text().splitlines())


def batch(*told: str) -> list[dict[str, Any]]:
    """Steps that are done at once, `action engine host` each, where at least one other replica shall serve."""
    return [{**step(one), "seconds": 60, "parts": [], "least": 1} for one in told]


def steps(*told: str) -> list[list[dict[str, Any]]]:
    """One after the other."""
    return [batch(one) for one in told]


def step(told: str) -> dict[str, Any]:
    """`action engine host`."""
    return dict(zip(("action", "engine", "host"), told.split(), strict=True))


def over_hosts(told: str, *parts: str) -> list[list[dict[str, Any]]]:
    """The step of a replica over several hosts."""
    return [[{**batch(told)[0], "parts": [step(part) for part in parts]}]]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


PARTS = ("stop e-0 a", "stop e-0.1 b", "start e-0.1 b")
FRONT = "front second watching: pool.py"


def test_the_parts_of_a_replica_over_hosts_are_changed_as_one(bed: Bed) -> None:
    ran = bed.play(over_hosts("replace e-0 a", *PARTS))
    assert ran.code == 0, ran.out
    assert at_once(ran.calls)[:-1] == [
        f"{FRONT} out --seconds=60 e-0=1",
        # its requests are done when it has stopped
        *("a: fleet_host.py stop e-0", "b: fleet_host.py stop e-0.1", "b: fleet_host.py start e-0.1"),
        "a: fleet_host.py replace e-0",
        f"{FRONT} back e-0",
    ]


@pytest.mark.parametrize("fails", ["b: fleet_host.py start e-0.1", "a: fleet_host.py replace e-0"])
def test_a_replica_over_hosts_that_does_not_come_up_is_put_back_as_one(bed: Bed, fails: str) -> None:
    ran = bed.play(over_hosts("replace e-0 a", *PARTS), [fails])
    assert ran.code != 0
    assert [call for call in ran.calls if "fleet_host.py back" in call] == [
        # those that follow are there before the one that leads, which is asked before it gets requests
        *("b: fleet_host.py back e-0.1", "b: fleet_host.py back e-0.1", "a: fleet_host.py back e-0"),
    ]
    assert at_once(ran.calls)[-1] == f"{FRONT} back e-0"
    assert "It gets requests as before" in ran.told


def test_a_replica_over_hosts_that_may_not_be_taken_out_is_not_touched(bed: Bed) -> None:
    fails = ["front: pool.py out --seconds=60 e-0=1", "front: pool.py back e-0"]
    ran = bed.play(over_hosts("replace e-0 a", *PARTS), fails)
    assert ran.code != 0
    assert [call for call in ran.calls if "fleet_host.py" in call] == []
    assert "It gets no requests from front." in ran.told


def test_one_engine_after_the_other_out_of_all_gateways_that_run_and_back(bed: Bed) -> None:
    ran = bed.play(steps("start e-2 b", "replace e-0 a", "stop e-1 b"))
    assert ran.code == 0, ran.out
    assert at_once(ran.calls) == [
        "b: fleet_host.py start e-2",
        # it may be one that was stopped in this deploy; a gateway that does not know it says so
        f"{FRONT} back e-2",
        f"{FRONT} out --seconds=60 e-0=1",
        "a: fleet_host.py replace e-0",
        f"{FRONT} back e-0",
        f"{FRONT} out --seconds=60 e-1=1",
        "b: fleet_host.py stop e-1",
        "front new second: after",
    ]
    assert not (bed.folder / "state/deploy-lease.json").exists()


def test_a_replica_that_fails_ends_the_deploy_and_what_was_put_back_serves_again(bed: Bed) -> None:
    ran = bed.play(steps("replace e-0 a", "replace e-1 b", "replace e-2 b"), fails=["b: fleet_host.py replace e-1"])
    assert ran.code != 0
    assert at_once(ran.calls)[-2:] == ["b: fleet_host.py replace e-1", f"{FRONT} back e-1"]
    assert "e-1 on b: it does not It gets requests as before." in ran.told
    assert "changed by this run, and serving: e-0." in ran.told
    assert "Not touched: e-2, the gateways' own files" in ran.told


def test_one_that_cannot_be_stopped_gets_requests_again(bed: Bed) -> None:
    ran = bed.play(steps("stop e-0 a"), fails=["a: fleet_host.py stop e-0"])
    assert ran.code != 0
    assert at_once(ran.calls)[-1] == f"{FRONT} back e-0"
    assert "e-0 on a: it does not It gets requests as before." in ran.told


def test_hosts_of_a_batch_work_at_once_and_the_next_batch_waits_for_all(bed: Bed) -> None:
    ran = bed.play([batch("replace e-0 a", "replace e-1 b"), batch("replace e-2 a")])
    assert ran.code == 0, ran.out
    calls = at_once(ran.calls)
    assert calls[0] == f"{FRONT} out --seconds=60 e-0=1 e-1=1"
    assert sorted(calls[1:3]) == ["a: fleet_host.py replace e-0", "b: fleet_host.py replace e-1"]
    assert calls[3:5] == [f"{FRONT} back e-0 e-1", f"{FRONT} out --seconds=60 e-2=1"]


def test_one_of_a_batch_that_fails_ends_the_deploy_when_the_others_serve_again(bed: Bed) -> None:
    batches = [batch("replace e-0 a"), batch("replace e-1 a", "replace e-2 b"), batch("replace e-3 b")]
    ran = bed.play(batches, fails=["a: fleet_host.py replace e-1"])
    assert ran.code != 0
    assert at_once(ran.calls)[-1] == f"{FRONT} back e-1 e-2"
    assert [call for call in ran.calls if "e-3" in call] == []
    assert "e-1 on a: it does not It gets requests as before." in ran.told
    assert "changed by this run, and serving: e-0, e-2." in ran.told
    assert "Not touched: e-3, the gateways' own files" in ran.told


def test_one_that_comes_up_and_does_not_answer_the_gateways_stays_out_and_ends_it(bed: Bed) -> None:
    ran = bed.play(steps("replace mute a", "replace e-1 b"))
    assert ran.code != 0
    assert at_once(ran.calls)[-1] == f"{FRONT} back mute"
    assert "mute on a: it is mute It gets no requests from front, second, watching." in ran.told


def test_a_host_that_is_lost_ends_the_deploy_when_the_others_serve_again(bed: Bed) -> None:
    ran = bed.play([batch("replace e-1 a", "replace e-2 b"), batch("replace e-3 a")], lost="b")
    assert ran.code != 0
    assert at_once(ran.calls)[-1] == f"{FRONT} back e-1 e-2"
    assert [call for call in ran.calls if "e-3" in call] == []
    assert "b does not answer any more: it comes to the end of its step by itself, and e-2 may stay out" in ran.told
    assert "changed by this run, and serving: e-1." in ran.told


@pytest.mark.parametrize("lost", [False, True])
def test_where_a_gateway_refuses_or_is_lost_no_engine_is_touched_and_the_others_send_requests_again(
    bed: Bed, lost: bool
) -> None:
    batches = [batch("replace e-0 a", "replace e-1 b")]
    ran = bed.play(batches, [] if lost else ["second: pool.py out --seconds=60 e-0=1 e-1=1"], "second" * lost)
    assert ran.code != 0
    assert [call for call in ran.calls if "fleet_host.py" in call] == []
    assert at_once(ran.calls)[-1] == ("front watching: pool.py" if lost else FRONT) + " back e-0 e-1"
    why = "does not answer any more." if lost else "it does not"
    assert f"second: {why} No engine was touched." in ran.told
    assert "changed by this run, and serving: none." in ran.told


def test_a_gateway_that_does_not_take_one_back_is_named(bed: Bed) -> None:
    ran = bed.play(steps("replace e-0 a", "replace e-1 b"), fails=["second: pool.py back e-0"])
    assert ran.code != 0
    assert "e-0 on a: it does not It gets no requests from second." in ran.told
    assert [call for call in ran.calls if "e-1" in call] == []


def test_a_fleet_that_another_deploy_holds_is_left_alone_and_that_of_a_dead_one_taken(bed: Bed) -> None:
    lease = bed.folder / "state/deploy-lease.json"
    lease.parent.mkdir()
    lease.write_text(json.dumps({"holder": "elsewhere/m/b/s/1/2", "until": 4e9}))
    ran = bed.play(steps("replace e-0 a"))
    assert ran.code != 0
    assert ran.calls == []
    assert "elsewhere/m/b/s/1/2" in ran.out
    assert bed.play(steps("replace e-0 a"), fleet_lease_dead="elsewhere/m/b/s/1/2").code == 0
