"""Files that the stack file's observability section names: the user's rule files and the receivers' secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stack.errors import InputError, Problem
from stack.observe.alertmanager import secret_files
from stack.private_file import write_private

MAX_RULES_BYTES = 1_000_000


def read(watch: Mapping[str, Any], root: Path, shown: str, *, secrets: bool = True) -> dict[str, str]:
    """Name -> text of the user's rule files. Raises InputError for what is no rule file, and for a receiver's secret
    that is not there, not readable, not one line, or for everybody to read.

    secrets: False where these are another host's. promtool says the rest of the rules before anything is applied.
    """
    problems = [
        Problem(f"observability.receivers[{index}].{kind}.{key}", f"{path}: {wrong}")
        for index, kind, key, path in (_secrets(watch) if secrets else ())
        if (wrong := _wrong_secret(root / path))
    ]
    found: dict[str, str] = {}
    for index, path in enumerate(watch["rules"]):
        name = f"{Path(path).stem}.yaml"
        text, wrong = _rules(root / path)
        if name in found:
            wrong = "another rule file has the same name"
        if wrong:
            problems.append(Problem(f"observability.rules[{index}]", f"{path}: {wrong}"))
        found[name] = text
    if problems:
        raise InputError(shown, problems)
    return found


def copy_secrets(watch: Mapping[str, Any], root: Path, folder: Path) -> list[Path]:
    """Copies for Alertmanager, which reads them as a user of its own; those of earlier receivers go. Their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = secret_files(watch)
    for old in folder.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, path in wanted.items():
        content = (root / path).read_bytes().strip()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content:
            write_private(folder / name, content)
    return [folder / name for name in wanted]


def _secrets(watch: Mapping[str, Any]) -> Iterator[tuple[int, str, str, str]]:
    for index, receiver in enumerate(watch["receivers"]):
        for kind, settings in receiver.items():
            if isinstance(settings, Mapping):
                for key, value in settings.items():
                    if key.endswith("_file") and value:
                        yield index, kind, key, value


def _wrong_secret(path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"the secret cannot be read: {error.strerror}"
    if path.stat().st_mode & 0o007:
        return "everybody on this host can read it: chmod 600"
    if not content.strip() or len(content.split()) != 1:
        return "it has to hold the secret and nothing else, on one line"
    return None


def _rules(path: Path) -> tuple[str, str | None]:
    if not (path.is_file() and os.access(path, os.R_OK)):
        return "", "is not a readable file"
    if path.stat().st_size > MAX_RULES_BYTES:
        return "", f"larger than {MAX_RULES_BYTES} bytes"
    try:
        text = path.read_text()
        document = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        return "", f"is not YAML: {' '.join(str(error).split())[:200]}"
    groups = document.get("groups") if isinstance(document, Mapping) else None
    if not isinstance(groups, list) or not groups:
        return "", "has no `groups`, so it is no Prometheus rule file"
    return text, None
