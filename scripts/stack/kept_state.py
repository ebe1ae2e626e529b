"""GatewayState from the files of a stack's state folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stack import clients, drains
from stack.gateway_state import GatewayState
from stack.secrets import engine_key


def load(state: Path, names: Sequence[str], certificate: str | None) -> GatewayState:
    """names: clients of the stack file. certificate: name of the pair that nginx shows, once there is one."""
    added = {
        name: {key: value for key, value in client.items() if key != "keys"}
        for name, client in clients.added(state).items()
        if name not in names
    }
    hashes = clients.every_hash(state, names)
    keys = engine_key.names(engine_key.load(state))
    out = drains.drained(state) | drains.replacing(state)
    return GatewayState(hashes, added, certificate or "none-yet", out, *keys)
