"""What cannot be undone is asked for: the stack's name, typed on a terminal."""

from __future__ import annotations

import sys

from stack.errors import InputError


def confirm(name: str, question: str, *, yes: bool) -> None:
    """Return when a person typed the name, or said so beforehand. Raises InputError, with nothing changed."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(name, f"{question} There is no terminal to ask on: say YES=1 (--yes) if you mean it.")
    print(f"{question}\nType {name} to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != name:
        raise InputError(name, "not confirmed; nothing was changed")
