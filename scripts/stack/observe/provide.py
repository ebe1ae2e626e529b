"""What the probes and Alertmanager read that is in no rendered tree: a key, a certificate, the receivers' secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stack.api_keys import key_file
from stack.certificates import certificate_file, client_trust_file
from stack.observe.user_files import copy_secrets
from stack.plan.gateway import PROBE
from stack.private_file import write_private
from stack.secrets import engine_key


def for_probe(state: Path) -> list[Path]:
    """The keys that the probe shows the gateway and the engines, as files of its own; their paths."""
    return [_copied(state, "key", key_file(state, PROBE).read_bytes().strip()), *engines_key(state)]


def engines_key(state: Path) -> list[Path]:
    """The key that the probe shows the engines, once there is one."""
    keys = engine_key.load(state)
    return [_copied(state, "engine-key", keys.sends.encode())] if keys else []


def _copied(state: Path, name: str, key: bytes) -> Path:
    copy = _probe(state) / name
    if not copy.is_file() or copy.read_bytes() != key:
        write_private(copy, key)
    return copy


def for_alertmanager(watch: Mapping[str, Any], root: Path, state: Path) -> list[Path]:
    """Copies of the receivers' secrets; their paths."""
    return copy_secrets(watch, root, state / "alertmanager")


def trust(state: Path, name: str) -> None:
    """The certificates that the probe trusts: the pair `name`, and the one shown until nginx has been reloaded."""
    shown = client_trust_file(state)
    certificates = [certificate_file(state, name).read_bytes(), shown.read_bytes() if shown.is_file() else b""]
    path = _probe(state) / "gateway.crt"
    wanted = b"".join(dict.fromkeys(certificates))
    if not path.is_file() or path.read_bytes() != wanted:
        write_private(path, wanted)
        path.chmod(0o644)


def _probe(state: Path) -> Path:
    folder = state / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
