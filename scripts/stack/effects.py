"""What a tree does to what runs: Compose's own hash decides which containers differ, as when it recreates them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from stack.docker_host import compose
from stack.render import MANIFEST, unit_of
from stack.tree import write_tree


def service_hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """service -> Compose's hash of its configuration; empty for an empty tree."""
    if not files:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), files)
        lines = compose(Path(folder), "config", "--hash", "*").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip())


def effects(
    old: Mapping[str, str], new: Mapping[str, str], before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, str]:
    """Part -> create, recreate, reload or remove.

    old, new: path -> checksum of the trees. before, after: service -> Compose's hash.
    """
    changed = [path for path in old.keys() | new.keys() if path != MANIFEST and old.get(path) != new.get(path)]
    found = {unit: "reload" for unit, needs in map(unit_of, changed) if needs == "reload"} if before else {}
    for part in before.keys() | after.keys():
        if part not in after:
            found[part] = "remove"
        elif before.get(part) != after[part]:
            found[part] = "recreate" if part in before else "create"
    return dict(sorted(found.items()))
