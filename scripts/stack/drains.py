"""Replicas that get no new request: decided by a person, kept over restarts and `make up`.

Apart from them those that a fleet's deploy has taken out while it replaces them: kept by each gateway host, as another
change of its gateway must not let requests in again, and gone with the end of the deploy or the start of the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from stack.errors import StackError


def drained(state: Path) -> frozenset[str]:
    """Names of the drained replicas. Raises StackError: damaged."""
    return _load(state / "drained.json")


def save(state: Path, names: Iterable[str]) -> None:
    """Remember exactly these."""
    _save(state / "drained.json", names)


def replacing(state: Path) -> frozenset[str]:
    """Names of those that a deploy has taken out. Raises StackError: damaged."""
    return _load(state / "replacing.json")


def save_replacing(state: Path, names: Iterable[str]) -> None:
    """Remember exactly these as taken out by a deploy."""
    _save(state / "replacing.json", names)


def _load(path: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads(path.read_text())) if path.exists() else frozenset()
    except ValueError:
        raise StackError(f"{path} is damaged: delete it, and drain again what is to be drained") from None


def _save(path: Path, names: Iterable[str]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(sorted(names)) + "\n")
    partial.rename(path)
