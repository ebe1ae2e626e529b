"""The tree that a controller sent to this host: refused where it is another than is rendered here, and kept true."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stack.errors import StackError
from stack.tree import compare, read_tree, write_tree


def refuse_other(shipped: Path, files: Mapping[str, bytes]) -> None:
    """Raise StackError unless the tree that was sent is the one that this host renders now."""
    differing = [change.path for change in compare(read_tree(shipped), files)]
    if differing:
        raise StackError(
            f"{shipped} is not what this host renders now; different are {', '.join(differing[:5])}. Something was"
            " changed here meanwhile (a key, a drained replica, a model): deploy again. Nothing was changed."
        )


@contextmanager
def mended_on_failure(shipped: Path | None, live: Path) -> Iterator[None]:
    """What was sent and could not be applied is not kept: the next difference is to what runs."""
    try:
        yield
    except BaseException:
        if shipped is not None:
            applied = read_tree(live)
            if applied:
                write_tree(shipped, applied)
            else:
                shutil.rmtree(shipped, ignore_errors=True)
        raise
