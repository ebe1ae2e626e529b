"""What a rendered tree would change on a host, from what the host says of itself."""

from __future__ import annotations

from collections.abc import Mapping

from stack.deploy.host_state import HostState
from stack.effects import service_hashes
from stack.render import MANIFEST, unit_of
from stack.tree import checksums


def difference(files: Mapping[str, bytes], told: HostState) -> dict[str, str]:
    """Part -> create, recreate, reload or remove: what a tree would do to what runs on a host."""
    return effects(told.live, checksums(files), told.services, service_hashes(files))


def effects(
    old: Mapping[str, str], new: Mapping[str, str], before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, str]:
    """old, new: path -> checksum. before, after: service -> Compose's hash."""
    changed = [path for path in old.keys() | new.keys() if path != MANIFEST and old.get(path) != new.get(path)]
    found = {unit: "reload" for unit, needs in map(unit_of, changed) if needs == "reload"} if before else {}
    for part in before.keys() | after.keys():
        if part not in after:
            found[part] = "remove"
        elif before.get(part) != after[part]:
            found[part] = "recreate" if part in before else "create"
    return dict(sorted(found.items()))
