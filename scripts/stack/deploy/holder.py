"""Who holds a fleet while it is deployed to: a process of a controller. A dead one loses what it held."""

from __future__ import annotations

import os
import platform
from dataclasses import astuple, dataclass
from pathlib import Path

PROC, MACHINE_ID = Path("/proc"), Path("/etc/machine-id")
PLAYBOOK = b"ansible-playbook"


@dataclass(frozen=True)
class Holder:
    """A process. node: the machine's name, for a person. machine, boot, space: which machine, its boot and its space of
    process ids (a container has one of its own). started: clock ticks since the boot, as a process id is used again.
    """

    node: str
    machine: str
    boot: str
    space: str
    process: int
    started: int

    def __str__(self) -> str:
        return "/".join(map(str, astuple(self)))


def current(process: int | None = None, proc: Path = PROC, machine: Path = MACHINE_ID) -> Holder:
    """The playbook that a process (this one) runs under: the uppermost of its ancestors that is one, or itself."""
    here = found = process or os.getpid()
    while here > 1 and (proc / str(here) / "stat").is_file():
        if PLAYBOOK in (proc / str(here) / "cmdline").read_bytes():
            found = here
        here = _stat(here, proc)[0]
    return _here(found, proc, machine)


def is_dead(text: str, proc: Path = PROC, machine: Path = MACHINE_ID) -> bool:
    """Whether a holder, as text, is a process of this machine that is no more.

    Of another machine's, or another container's, nobody here knows: it loses by time.
    """
    try:
        node, where, boot, space, process, started = text.rsplit("/", 5)
        told = Holder(node, where, boot, space, int(process), int(started))
    except ValueError:
        return False
    here = _here(told.process, proc, machine)
    if (told.node, told.machine) != (here.node, here.machine) or not told.machine:
        return False
    if told.boot != here.boot:
        return True
    return told.space == here.space and told.started != here.started


def _here(process: int, proc: Path, machine: Path) -> Holder:
    space = proc / "self/ns/pid"
    return Holder(
        platform.node(), _text(machine), _text(proc / "sys/kernel/random/boot_id"),
        str(space.readlink()) if space.is_symlink() else "", process, _stat(process, proc)[1],
    )  # fmt: skip


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _stat(process: int, proc: Path) -> tuple[int, int]:
    """(parent, start time); zeros where no such process runs, or /proc is not as Linux has it."""
    path = proc / str(process) / "stat"
    if not path.is_file():
        return 0, 0
    # the name, in brackets, may have spaces and brackets of its own
    fields = path.read_text().rpartition(")")[2].split()
    # one that has ended and that nobody waits for, as in a container without an init, is there for good
    return (0, 0) if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))
