"""API keys of the gateway's clients.

A client of the stack file has its key in a file of its own, outside build/, so that this host can use it. A client
added by command is shown its key once; only the SHA-256 is kept, in clients.json.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stack.api_keys import key_file, key_hashes
from stack.config.gateway import Client
from stack.errors import InputError
from stack.private_file import write_private

KEYS_AT_ONCE = 2  # an old and a new one, while a client changes over
ID_LENGTH = 8


def added(state: Path) -> dict[str, dict[str, Any]]:
    """name -> {limits, keys: [{id, sha256, made}]} of the keys added by command. Raises InputError: damaged."""
    path = _store(state)
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise InputError(
            str(path), f"the added keys cannot be read: {why}; restore it from a backup, without it they are lost"
        ) from None
    return found


def every_hash(state: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 (hex) -> client, of the stack file's clients and of the added ones."""
    return {
        **key_hashes(state, names),
        **{key["sha256"]: name for name, client in added(state).items() for key in client["keys"]},
    }


def add(state: Path, client: Client, in_stack_file: bool) -> str:
    """Make a key for a client, new or known; the key, which is kept nowhere. Raises InputError."""
    known = added(state)
    limits = client.model_dump(exclude={"name"})
    entry = known.get(client.name, {**limits, "keys": []})
    if in_stack_file and any(value is not None for value in limits.values()):
        raise InputError(client.name, "its limits are in the stack file (gateway.api_keys); add a key without limits")
    if len(entry["keys"]) + in_stack_file >= KEYS_AT_ONCE:
        raise InputError(client.name, f"it has {KEYS_AT_ONCE} keys already; revoke one first: `make key-list`")
    given = {key: value for key, value in limits.items() if value is not None}
    key = "sk-" + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {**entry, **given, "keys": [*entry["keys"], {"id": digest[:ID_LENGTH], "sha256": digest, "made": made}]}
    _save(state, {**known, client.name: entry})
    return key


def revoke(state: Path, name: str, key_id: str | None, names: Sequence[str]) -> str:
    """Take a key back; what was done. key_id is needed where the client has two. Raises InputError."""
    known = added(state)
    keys = {key["id"]: key for key in known.get(name, {}).get("keys", [])}
    own = {digest[:ID_LENGTH] for digest, client in key_hashes(state, names).items() if client == name}
    ids = sorted(own | keys.keys())
    if not ids:
        raise InputError(name, f"no such client; there are: {', '.join(sorted({*names, *known}))}")
    if key_id is None and len(ids) > 1:
        raise InputError(name, f"it has the keys {' and '.join(ids)}: say which, KEY=id")
    chosen = key_id or ids[0]
    if chosen not in ids:
        raise InputError(name, f"no key {chosen}; there are: {', '.join(ids)}")
    if chosen in own:
        key_file(state, name).unlink()
        return f"revoked key {chosen} of {name}; the stack file names it, so the next `make up` makes a new one"
    left = [key for key in known[name]["keys"] if key["id"] != chosen]
    known[name]["keys"] = left
    _save(state, {client: entry for client, entry in known.items() if entry["keys"]})
    return f"revoked key {chosen} of {name}" + ("" if left or own else ", which was its last")


def listing(state: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """One row a key: client, key id, made, where it comes from."""
    rows = [
        {"client": name, "key": digest[:ID_LENGTH], "made": "-", "from": str(key_file(state, name))}
        for digest, name in key_hashes(state, names).items()
    ]
    for name, client in added(state).items():
        rows += [
            {"client": name, "key": key["id"], "made": key["made"], "from": "make key-add"} for key in client["keys"]
        ]
    return sorted(rows, key=lambda row: (row["client"], row["made"]))


def _store(state: Path) -> Path:
    return state / "secrets" / "clients.json"


def _save(state: Path, clients: dict[str, dict[str, Any]]) -> None:
    _store(state).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(_store(state), (json.dumps(clients, indent=1, sort_keys=True) + "\n").encode())
