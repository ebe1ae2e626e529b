"""What an engine's own log says of its KV cache."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_AVAILABLE = re.compile(r"Available KV cache memory: ([\d.]+) GiB")


@dataclass(frozen=True)
class CacheSize:
    """Tokens, the length that concurrency is meant for, and the cache's GiB where the log names it (GPUs)."""

    tokens: int
    length: int
    concurrency: float
    gib: float | None


def cache_size(log: str) -> CacheSize | None:
    """The newest size in a log; None where the engine has not said it yet."""
    sizes = _SIZE.findall(log)
    if not sizes:
        return None
    tokens, length, concurrency = sizes[-1]
    available = _AVAILABLE.findall(log)
    gib = float(available[-1]) if available else None
    return CacheSize(int(tokens.replace(",", "")), int(length.replace(",", "")), float(concurrency), gib)
