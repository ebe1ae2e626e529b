"""What a bug report or an incident needs, without its secrets, in one archive that is bounded in size and time.

Every part is gathered for itself: what fails or hangs is noted in index.json, and the rest is there.
"""

from __future__ import annotations

import io
import json
import queue
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stack.console import say

SECONDS = 90.0
PART_BYTES, TOTAL_BYTES = 2 * 2**20, 64 * 2**20
WORKERS = 6

Gather = Callable[[], Mapping[str, str]]
Redact = Callable[[str], str]


@dataclass(frozen=True)
class Part:
    """One part: its name, and what gathers its files (path in the archive -> text)."""

    name: str
    gather: Gather


@dataclass(frozen=True)
class Noted:
    """How one part went. error: why it is missing or cut."""

    name: str
    seconds: float
    files: tuple[str, ...] = ()
    error: str | None = None


def gathered(parts: Sequence[Part], redact: Redact, seconds: float = SECONDS) -> tuple[dict[str, str], list[Noted]]:
    """(path -> redacted text, how each part went), after at most so many seconds."""
    todo: queue.SimpleQueue[Part] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[dict[str, str], Noted]] = queue.SimpleQueue()
    for part in parts:
        todo.put(part)

    def work() -> None:
        while True:
            try:
                part = todo.get_nowait()
            except queue.Empty:
                return
            done.put(_one(part, redact))

    for _ in range(WORKERS):
        threading.Thread(target=work, daemon=True).start()  # one that hangs does not keep the command from ending
    files: dict[str, str] = {}
    notes: dict[str, Noted] = {}
    deadline = time.monotonic() + seconds
    while len(notes) < len(parts) and (left := deadline - time.monotonic()) > 0:
        try:
            found, note = done.get(timeout=left)
        except queue.Empty:
            break
        notes[note.name] = note
        files |= found
        if note.error:
            say(f"{note.name}: {note.error.splitlines()[0][:160]}")
    for part in parts:
        if part.name not in notes:
            notes[part.name] = Noted(part.name, seconds, error=f"not there within {seconds:g} s: it hangs")
            say(f"{part.name}: {notes[part.name].error}")
    return files, [notes[part.name] for part in parts]


def write(path: Path, top: str, files: Mapping[str, str], notes: Iterable[Noted], about: Mapping[str, object]) -> int:
    """Write the archive, mode 0600, with index.json first; its size in bytes. What is over TOTAL_BYTES is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    left, taken, over = TOTAL_BYTES, {}, []
    for name, text in sorted(files.items()):
        data = text.encode(errors="replace")
        if len(data) > left:
            over.append(name)
        else:
            left -= len(data)
            taken[name] = data
    index = {**about, "parts": [asdict(note) for note in notes], "left_out_as_too_large": over}
    taken = {"index.json": (json.dumps(index, indent=1) + "\n").encode(), **taken}
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    with tarfile.open(partial, "w:gz") as archive:
        for name, data in taken.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    partial.rename(path)
    return path.stat().st_size


def now() -> str:
    """UTC, for names of files."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def bounded(text: str, limit: int = PART_BYTES) -> str:
    """A text, its middle left out when it is too long."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n... {len(text) - limit} characters left out ...\n{text[-limit // 2 :]}"


def _one(part: Part, redact: Redact) -> tuple[dict[str, str], Noted]:
    began = time.monotonic()
    try:
        # redacted before it is cut: a secret that is cut in two is not known any more
        found = {redact(path): bounded(redact(text)) for path, text in part.gather().items()}
    except Exception as error:  # whatever it is, the others go on
        what = redact(f"{type(error).__name__}: {error}")
        return {}, Noted(part.name, round(time.monotonic() - began, 2), error=what[:2000])
    return found, Noted(part.name, round(time.monotonic() - began, 2), tuple(sorted(found)))
