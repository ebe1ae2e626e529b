"""What Grafana starts with: the password of its first user, and the key that it keeps its own secrets with.

Both are read once, when its database is made, and neither is ever changed here: a password is changed in Grafana, and
with another key it could not read what it has kept.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from stack.errors import InputError
from stack.ownership import GRAFANA_UID
from stack.private_file import write_private
from stack.secrets.copies import Copy

# Name of the copy that Grafana reads, as compose/grafana.yaml has it -> the file that this host keeps.
FILES = {"admin-password": "grafana-admin-password", "secret-key": "grafana-secret-key"}


def password_file(state: Path) -> Path:
    """Where whoever runs `make` finds the password of the user admin."""
    return state / "secrets" / FILES["admin-password"]


def ensure(state: Path) -> tuple[Copy, ...]:
    """Both secrets, made if need be, as what the container reads. Raises InputError."""
    kept = load(state)
    for name, value in kept.items():
        if value is None:
            path = state / "secrets" / FILES[name]
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # hex: no character of it means anything to a shell or to Grafana's configuration
            kept[name] = secrets.token_hex(24)
            write_private(path, f"{kept[name]}\n".encode())
    return tuple(Copy("grafana", name, GRAFANA_UID, f"{value}\n".encode()) for name, value in kept.items())


def load(state: Path) -> dict[str, str | None]:
    """Name of the copy -> value; None for one that is still to be made. Raises InputError for one that is unusable."""
    return {name: _read(state / "secrets" / file) for name, file in FILES.items()}


def _read(path: Path) -> str | None:
    try:
        value = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise InputError(str(path), f"Grafana's secret cannot be read: {why}; restore it") from None
    if not value:
        raise InputError(str(path), "Grafana's secret is empty; restore it")
    return value
