"""API keys of the gateway's clients: one file each, outside build/, never shown but by their path."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from stack.errors import InputError
from stack.private_file import write_private

MINIMUM_KEY_LENGTH = 16


def key_file(state: Path, name: str) -> Path:
    """Where the API key of a client is."""
    return state / "secrets" / "api-keys" / name


def ensure_keys(state: Path, names: Sequence[str]) -> list[str]:
    """Make the keys that are missing, 256 random bits each; the names of those made."""
    made = []
    for name in names:
        path = key_file(state, name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, b"sk-" + secrets.token_urlsafe(32).encode() + b"\n")
            made.append(name)
    return made


def key_hashes(state: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 (hex) of each key that is there -> client name. Raises InputError for one that is unusable."""
    found: dict[str, str] = {}
    for name in names:
        path = key_file(state, name)
        try:
            key = path.read_text().strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise InputError(
                str(path), f"the API key cannot be read: {why}; mend it, or delete it and `make up` makes a new one"
            ) from None
        if len(key) < MINIMUM_KEY_LENGTH or any(char.isspace() for char in key):
            raise InputError(
                str(path), f"not an API key (one word of at least {MINIMUM_KEY_LENGTH} characters is needed);"
                " delete the file and `make up` makes a new one"
            )  # fmt: skip
        digest = hashlib.sha256(key.encode()).hexdigest()
        if digest in found:
            what = f"the same key as {found[digest]!r}: a client could not be told from the other"
            raise InputError(str(path), what)
        found[digest] = name
    return found
