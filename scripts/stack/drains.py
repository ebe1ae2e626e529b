"""Replicas that get no new request: decided by a person, kept over restarts and `make up`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from stack.errors import StackError


def drained(state: Path) -> frozenset[str]:
    """Names of the drained replicas. Raises StackError: damaged."""
    path = _file(state)
    try:
        return frozenset(json.loads(path.read_text())) if path.exists() else frozenset()
    except ValueError:
        raise StackError(f"{path} is damaged: delete it, and drain again what is to be drained") from None


def save(state: Path, names: Iterable[str]) -> None:
    """Remember exactly these."""
    partial = _file(state).with_suffix(".partial")
    partial.write_text(json.dumps(sorted(names)) + "\n")
    partial.rename(_file(state))


def _file(state: Path) -> Path:
    return state / "drained.json"
