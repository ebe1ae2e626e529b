"""What a rendered tree would change on a host, from what the host says of itself."""

from __future__ import annotations

from collections.abc import Mapping

from stack.deploy.host_state import HostState
from stack.effects import effects, service_hashes
from stack.tree import checksums


def difference(files: Mapping[str, bytes], told: HostState) -> dict[str, str]:
    """Part -> create, recreate, reload or remove: what a tree would do to what runs on a host."""
    return effects(told.live, checksums(files), told.services, service_hashes(files))
