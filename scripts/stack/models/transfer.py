"""A long transfer: how far it is, how fast, and how it is stopped."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence

from stack.disk_space import gib

TERMINAL_SECONDS, LOG_SECONDS = 1.0, 15.0
JOIN_SECONDS = 12.0


class StoppedError(Exception):
    """The transfer was stopped because another part of it failed, or by the user."""


class Meter:
    """Bytes that came of those that are to come. Threads may add at the same time."""

    def __init__(self, total: int, have: int = 0) -> None:
        self.total = total
        self._have = self._first = have
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.stopped = threading.Event()

    def add(self, count: int) -> None:
        """Count bytes; negative ones were thrown away. Raises StoppedError: the way a running part is stopped."""
        with self._lock:
            self._have += count
        if self.stopped.is_set():
            raise StoppedError

    def line(self) -> str:
        """Such as ``1.2 GiB of 8.0 GiB (15 %), 110.3 MiB/s, 63 s left``; the rate is that of this run."""
        with self._lock:
            have, came = self._have, self._have - self._first
        rate = came / max(time.monotonic() - self._began, 0.001)
        text = f"{gib(have)} of {gib(self.total)} ({100 * have // max(self.total, 1)} %), {gib(rate)}/s"
        return f"{text}, {(self.total - have) / rate:.0f} s left" if rate > 0 and have < self.total else text

    @property
    def complete(self) -> bool:
        """Whether every byte came; what comes last is still being checked then."""
        return self._have >= self.total


def side_by_side(jobs: Sequence[Callable[[], None]], workers: int, meter: Meter, say: Callable[[str], None]) -> None:
    """Run every job, a few at a time, and tell how far the meter is. The first error stops the others and is raised.

    Threads are daemons: one that waits for an answer does not keep an interrupted program from ending.
    """
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[BaseException] = []

    def work() -> None:
        while not meter.stopped.is_set():
            try:
                waiting.get_nowait()()
            except queue.Empty:
                return
            except BaseException as error:  # raised again by the thread that waits
                failures.append(error)
                meter.stopped.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        _watch(threads, meter, say)
    finally:
        meter.stopped.set()
    for thread in threads:
        thread.join(JOIN_SECONDS)  # the others end at their next piece
    for failure in failures:
        if not isinstance(failure, StoppedError):
            raise failure


def _watch(threads: Sequence[threading.Thread], meter: Meter, say: Callable[[str], None]) -> None:
    terminal = sys.stderr.isatty()
    interval = TERMINAL_SECONDS if terminal else LOG_SECONDS
    told = time.monotonic()
    while any(thread.is_alive() for thread in threads) and not meter.stopped.is_set():
        next((thread for thread in threads if thread.is_alive()), threads[0]).join(0.2)
        if time.monotonic() - told >= interval:
            told = time.monotonic()
            line = f"  {meter.line()}{', checking' if meter.complete else ''}"
            if terminal:  # one line that is written over
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            else:
                say(line)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
