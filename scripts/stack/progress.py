"""Progress of slow steps that run side by side, as plain lines that also read well in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from stack.errors import StackError

HEARTBEAT_S = 5.0
TAIL_LINES = 15


class CancelledError(StackError):
    """Another step failed or the user interrupted; this one was stopped."""


class Progress:
    """Says when a step starts and ends, and every 5 s which steps are still running.

    say: takes one line. cancel() stops every step that watches `cancelled`, commands included.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._lock = threading.Lock()
        self._running: dict[str, tuple[float, str]] = {}
        self._done = threading.Event()
        self.cancelled = threading.Event()

    def __enter__(self) -> Progress:
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def cancel(self) -> None:
        """Ask every running step to stop."""
        self.cancelled.set()

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """One step; its duration is said when it ends well. Raises CancelledError instead of starting late."""
        if self.cancelled.is_set():
            raise CancelledError(f"{name}: not started, as something else failed")
        started = time.monotonic()
        with self._lock:
            self._running[name] = (started, what)
        self.say(f"{name}: {what}")
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(name, None)
        self.say(f"{name}: {what}: done in {time.monotonic() - started:.0f} s")

    def detail(self, name: str, what: str) -> None:
        """What a running step is at now, for the next heartbeat."""
        with self._lock:
            if name in self._running:
                self._running[name] = (self._running[name][0], what)

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_S):
            now = time.monotonic()
            with self._lock:
                parts = [f"{name} ({what}, {now - since:.0f} s)" for name, (since, what) in self._running.items()]
            if parts:
                self.say("  working on " + ", ".join(parts))

    def command(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        stdout: IO[Any] | None = None,
    ) -> None:
        """Run a command, its output in the file `log` (stdout elsewhere when given).

        Raises StackError with the last lines when it fails, CancelledError when it was stopped.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout or output,
                stderr=output,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    if self.cancelled.wait(0.1):
                        raise CancelledError(f"{name}: stopped, as something else failed")
            finally:
                stop_group(process)
        if process.returncode:
            tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            raise StackError(
                f"{name}: `{' '.join(argv[:2])}` failed with exit code {process.returncode}:\n  " + "\n  ".join(tail)
            )


def stop_group(process: subprocess.Popen[Any], grace_s: float = 5.0) -> None:
    """End a process started in its own session, and its children; does nothing when it has ended."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
        return
