"""Which images this project brought onto this host, so that `make gc` takes no other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

from stack.errors import StackError


def read(shared: Path) -> dict[str, float]:
    """Reference -> when it was pulled or built (Unix time). Raises StackError: damaged."""
    path = _file(shared)
    try:
        found: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        raise StackError(
            f"{path} is damaged: delete it, and `make gc` leaves the pulled images of before alone"
        ) from None
    return found


def add(shared: Path, references: Iterable[str]) -> None:
    """Note that these were made now."""
    made = dict.fromkeys(references, round(time.time(), 1))
    if made:
        _write(shared, {**read(shared), **made})


def drop(shared: Path, references: Iterable[str]) -> None:
    """Forget these: they are gone."""
    gone = set(references)
    known = read(shared)
    if gone & known.keys():
        _write(shared, {name: when for name, when in known.items() if name not in gone})


def _write(shared: Path, known: dict[str, float]) -> None:
    partial = _file(shared).with_suffix(".partial")
    partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    partial.rename(_file(shared))


def _file(shared: Path) -> Path:
    return shared / "images-made.json"
