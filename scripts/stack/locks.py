"""Who may change what, held by the kernel: a lock ends with the process that holds it, however it ends."""

from __future__ import annotations

import argparse
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stack.console import say, step
from stack.errors import StackError


def add_wait_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that may wait for only_one()."""
    parser.add_argument(
        "--wait", type=float, default=0, metavar="S", help="seconds to wait for another command that changes this stack"
    )


@contextmanager
def only_one(state: Path, wait: float = 0) -> Iterator[None]:
    """Hold a stack: two `make up` of it at once would undo each other.

    wait: seconds to wait for another command to end. Raises StackError when it is still held then.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        if not _held_within(file, wait):
            raise StackError(f"another command is changing this stack right now (lock {state}/lock)")
        yield


def _held_within(file: TextIO, wait: float) -> bool:
    deadline, told = time.monotonic() + wait, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            if not told:
                say("another command is changing this stack; waiting for its end")
                told = True
            time.sleep(0.1)
        else:
            return True


@contextmanager
def taking_turns(shared: Path, waiting: str = "waiting for the set-up of another stack") -> Iterator[None]:
    """Hold what the stacks of one state folder share (GPUs, images, build/; its models/ have their own), waiting."""
    shared.mkdir(parents=True, exist_ok=True)
    with (shared / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(waiting):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
