"""The health check of a part that follows: it ends a part whose leader is gone, so that the replica starts anew as one.

A follower's vLLM has no page to ask, and does not notice the end of its leader: its workers wait for the next step on a
queue that nobody fills (`worker_busy_loop` of 0.32.0). The leader's worker keeps the store of the process group, which
listens as long as it lives. Once it was there and is refused, that worker is gone, and a new one needs new followers:
all is killed here, Docker starts the part again (`restart: unless-stopped`), and vLLM waits for the leader to come.
Silence is taken for the end later, as a network may have dropped it.

The other way round nothing is needed: a leader whose follower is gone fails at its next step, or hangs in it, which is
what check.py asks it for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import evidence

# Runs in a row: Docker begins one 3 s after the other ended.
SILENT = 10
LIMIT_SECONDS = 2.0


@dataclass(frozen=True)
class Seen:
    """What one look leaves to the next. joined: the leader was there; silent: looks in a row without an answer."""

    joined: bool = False
    silent: int = 0


def look(leader: tuple[str, int], before: Seen) -> tuple[Seen, str]:
    """One look at the leader: what to remember, and why this part has to end (empty: it has not)."""
    try:
        with socket.create_connection(leader, LIMIT_SECONDS):
            return Seen(joined=True), ""
    except ConnectionRefusedError:
        return before, "its leader is gone" if before.joined else ""
    except OSError:
        seen = replace(before, silent=before.silent + 1)
        return seen, f"no sign of its leader, {SILENT} in a row" if seen.joined and seen.silent >= SILENT else ""


def main(
    leader: tuple[str, int],
    memory: Path = Path("/tmp/follower.json"),  # a tmpfs: empty after each start
    proc: Path = Path("/proc"),
    kill: Callable[[int, int], None] = os.kill,
) -> int:
    """One run: 0, or 1 once it ends this part. Docker keeps what is printed (`docker inspect`)."""
    seen, problem = look(leader, _remembered(memory))
    memory.write_text(json.dumps(asdict(seen)))
    print(problem or ("healthy" if seen.joined else "waits for its leader"))
    if not problem:
        return 0
    for pid in sorted(set(evidence.processes(proc)) - {1, os.getpid()}, reverse=True):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    return 1


def _remembered(memory: Path) -> Seen:
    try:
        return Seen(**json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        return Seen()


if __name__ == "__main__":
    address, _, port = os.environ["LEADER"].partition(":")
    sys.exit(main((address, int(port))))
