"""Who may change what, held by the kernel: a lock ends with the process that holds it, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.console import step
from stack.errors import StackError


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold a stack: two `make up` of it at once would undo each other. Raises StackError when it is held."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another command is changing this stack right now (lock {state}/lock)") from None
        yield


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
