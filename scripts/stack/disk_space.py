"""Whether a disk has room, asked before the first byte is written."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from stack.errors import StackError

# What a fetch leaves to the others on the disk: logs, metrics, the running stack.
RESERVE_BYTES = 2**30


def gib(size: float) -> str:
    """Bytes for a person."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise StackError when the disk of `folder` has not `needed` bytes and the reserve. It need not exist yet."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and free < needed + RESERVE_BYTES:
        raise StackError(
            f"{what}: {gib(needed)} are still to come and {gib(RESERVE_BYTES)} stay free, but the disk of {place} has"
            f" {gib(free)} free; make room, or set paths.state in the stack file to a larger disk. Nothing was written."
        )


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk, or a quota on it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
