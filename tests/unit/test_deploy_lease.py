"""Who holds a fleet: the module as Ansible runs it, and which process of a controller is dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stack.deploy.holder import Holder, current, is_dead
from unit import ansible_module


def lease(path: Path, holder: str, **options: Any) -> dict[str, Any]:
    return ansible_module.run("deploy_lease", {"path": str(path), "holder": holder, **options})


def test_ansible_can_start_it(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "lease.json"), "holder": "a"}
    assert ansible_module.start("deploy_lease", options)["held"]
    assert ansible_module.start("deploy_lease", {**options, "holder": "b"})["holder"] == "a"


def test_one_holds_it_and_says_so_again_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "state/lease.json"
    assert lease(path, "a")["held"]
    assert lease(path, "a", seconds=100)["held"]
    refused = lease(path, "b")
    assert (refused["held"], refused["holder"]) == (False, "a")
    assert 90 < refused["left"] <= 101
    lease(path, "b", state="absent")  # not b's to let go
    assert not lease(path, "b")["held"]
    lease(path, "a", state="absent")
    assert lease(path, "b")["held"]


def test_it_is_lost_by_time_and_by_death(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    assert lease(path, "a", seconds=-1)["held"]
    assert lease(path, "b")["held"]
    assert not lease(path, "c", dead="a")["held"]
    assert lease(path, "c", dead="b")["held"]


@pytest.mark.parametrize("text", ["", "{", '{"holder": "a"}'])
def test_a_damaged_one_is_nobodys(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text)
    assert lease(path, "b")["held"]


def test_a_look_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    assert lease(path, "a", _ansible_check_mode=True)["held"]
    assert not path.exists()


class Machine:
    """/proc and /etc/machine-id of a controller."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.machine = folder / "proc", folder / "machine-id"
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "self/ns").mkdir(parents=True)
        (self.proc / "self/ns/pid").symlink_to("pid:[1]")
        self.boot("boot-1")
        self.machine.write_text("m1\n")

    def boot(self, name: str) -> None:
        (self.proc / "sys/kernel/random/boot_id").write_text(f"{name}\n")

    def process(self, number: int, parent: int, started: int, command: str, state: str = "S") -> None:
        folder = self.proc / str(number)
        folder.mkdir(exist_ok=True)
        # as proc(5) has it: start time is the 22nd field
        (folder / "stat").write_text(f"{number} (a) b) {state} {parent} {' '.join('0' * 17)} {started} 0\n")
        (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode())

    def current(self, process: int) -> Holder:
        return current(process, self.proc, self.machine)

    def is_dead(self, holder: object) -> bool:
        return is_dead(str(holder), self.proc, self.machine)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.process(1, 0, 1, "init")
    found.process(10, 1, 50, "make deploy")
    found.process(20, 10, 60, "python ansible-playbook deploy.yml")
    found.process(30, 20, 70, "python ansible-playbook deploy.yml")  # a worker of it
    found.process(40, 30, 80, "python scripts/deploy_holder.py")
    return found


def test_the_holder_is_the_playbook_that_this_runs_under(machine: Machine) -> None:
    assert (machine.current(40).process, machine.current(40).started) == (20, 60)
    assert machine.current(10).process == 10


def test_a_process_that_is_no_more_is_dead(machine: Machine) -> None:
    holder = machine.current(40)
    assert not machine.is_dead(holder)
    machine.process(20, 1, 900, "something else")  # its number, used again
    assert machine.is_dead(holder)


def test_a_process_that_has_ended_and_that_nobody_waits_for_is_dead(machine: Machine) -> None:
    holder = machine.current(40)
    machine.process(20, 1, 60, "", state="Z")
    assert machine.is_dead(holder)


def test_after_a_boot_all_are_dead(machine: Machine) -> None:
    holder = machine.current(40)
    machine.boot("boot-2")
    assert machine.is_dead(holder)


def test_of_another_machine_or_container_nobody_knows(machine: Machine) -> None:
    holder = machine.current(99)
    machine.machine.write_text("m2\n")
    assert not machine.is_dead(holder)
    machine.machine.write_text("m1\n")
    (machine.proc / "self/ns/pid").unlink()
    (machine.proc / "self/ns/pid").symlink_to("pid:[2]")
    machine.process(99, 1, 5, "x")
    assert not machine.is_dead(holder)
    assert not machine.is_dead("nonsense")
