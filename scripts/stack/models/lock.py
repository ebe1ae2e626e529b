"""models.lock: what was fetched, from where, when, and the checksum of every file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from stack.errors import StackError
from stack.yaml_input import parsed

HEAD = "# What was fetched into models/, as it came; written by `make fetch` and `make up`. A record, never input.\n"


def read(path: Path) -> dict[str, Any]:
    """Folder below models/ -> what is known of it. Raises StackError when the file is not one of ours."""
    try:
        document = parsed(path.read_text()) if path.is_file() else {"models": {}}
        models = document["models"]
        if isinstance(models, dict):
            return models
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        pass
    raise StackError(f"{path} is not a record of fetched models; move it away, and the next fetch begins a new one")


def record(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Add or replace one model's entry, in one step."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _write(path, {**read(path), name: {**entry, "fetched": now}})


def forget(path: Path, name: str) -> None:
    """Drop one model's entry: it is not here any more."""
    known = read(path)
    if name in known:
        _write(path, {other: entry for other, entry in known.items() if other != name})


def _write(path: Path, models: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(HEAD + yaml.safe_dump({"models": dict(models)}, sort_keys=True, width=200))
    partial.rename(path)


def listing(folder: Path, known: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Path -> size in bytes and SHA-256 of each file; `known` checksums are not computed again."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: str(path.relative_to(folder)) for path in files}
    return {
        names[path]: {"size": path.stat().st_size, "sha256": (known or {}).get(names[path]) or _sha256(path)}
        for path in files
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
