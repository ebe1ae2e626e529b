"""Which containers differ from what a tree asks for: Compose's own hash decides, as it does when it recreates them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from stack.docker_host import compose
from stack.tree import write_tree


def service_hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """service -> Compose's hash of its configuration; empty for an empty tree."""
    if not files:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), files)
        lines = compose(Path(folder), "config", "--hash", "*").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip())
