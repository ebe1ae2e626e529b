"""Messages for people: progress on stderr, results on stdout, colours only on a terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import requests
from docker.errors import DockerException

from stack.errors import StackError

HEARTBEAT_SECONDS = 5.0
_START = time.monotonic()


def say(message: str) -> None:
    """One line of progress, with the seconds since the command began."""
    print(f"[{time.monotonic() - _START:6.1f}s] {message}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str, tell: Callable[[str], None] = say) -> Iterator[None]:
    """Say that something began, and every few seconds that it is still going on."""
    tell(what)
    began, done = time.monotonic(), threading.Event()

    def heartbeat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            tell(f"{what} ... {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=heartbeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def coloured(text: str, colour: str) -> str:
    """Text in a colour when stdout is a terminal and NO_COLOR is not set."""
    codes = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{codes[colour]}m{text}\033[0m"


def print_json(value: object) -> None:
    """A result for machines, on stdout."""
    print(json.dumps(value, indent=1, sort_keys=True))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a head, columns aligned."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's main: a StackError becomes its message and exit code, Ctrl-C and SIGTERM 130.

    What the machine refuses (a file, the disk, Docker, the network) is a message too: a traceback is for bugs.
    """
    os.umask(0o022)  # rendered files are read by containers of several users; secrets set their own modes
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = main()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stdout = None  # the reader left: nothing to flush into
        code = 0
    except (OSError, DockerException, requests.RequestException) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
