"""Waiting for what a test expects to come."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], bool], seconds: float, what: str = "so") -> float:
    """Ask again until it holds; seconds that took. Raises AssertionError when it does not in time."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not {what} after {seconds:.0f} s"
        time.sleep(0.2)
    return time.monotonic() - began
