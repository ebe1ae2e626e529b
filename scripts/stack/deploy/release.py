"""A release: all that a host needs to run its stack without the controller. Its id is the hash of what is in it.

The program's folders, the stack file as this host has it, the host's entry of the hosts file, and the user's rules. The
hosts of a fleet have one release: with all of their entries, and where their engines run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from stack.config.load import load_config
from stack.deploy.host_stack import RULES, host_stack
from stack.errors import InputError
from stack.fleet_lock import lock_file
from stack.hardware import is_fleet, load_hosts
from stack.observe import user_files
from stack.yaml_input import load_mapping

FOLDERS = ("compose", "grafana/dashboards", "grafana/provisioning", "nginx", "scripts", "templates")
STACK, HOSTS, REQUIREMENTS = "stack.yaml", "hosts.yaml", "requirements-host.lock"
ID_LENGTH = 16
# What only a controller needs, half a gigabyte of it.
NOT_ON_HOSTS = ("ansible", "ansible-core")


@dataclass(frozen=True)
class File:
    """One file of a release."""

    content: bytes
    mode: int


def files_of(
    root: Path, stack: Path, hosts: Path, host: str | None, state: str, images: str | None = None
) -> dict[str, File]:
    """Relative path -> file. root: the project's folder; state: the host's folder for state. Raises InputError.

    host: None for all hosts of a fleet. images: another images.source than the stack file's, for a host that gathers
    what the others get.
    """
    shown = str(stack)
    load_config(stack, shown)
    every = load_hosts(hosts)
    own = [each for each in every if host in (None, each.name)]
    if not own:
        raise InputError(str(hosts), f"no host {host!r}")
    if host is None and not is_fleet(every):
        raise InputError(str(hosts), "its hosts are each a stack for themselves, and a fleet is wanted: docs/fleet.md")
    document = load_mapping(stack)
    if images is not None:
        given = document.get("images") or {}
        document["images"] = {
            **given,
            "source": images,
            "archive": given.get("archive") if images == "archive" else None,
        }
    entry = {"hosts": [each.model_dump(mode="json", exclude_none=True) for each in own]}
    found = dict(_program(root))
    found |= {
        STACK: _text(f"{stack.name} as this host has it", host_stack(document, state)),
        HOSTS: _text("what the inventory says of this host", entry),
        REQUIREMENTS: File(for_hosts((root / "requirements.lock").read_text()).encode(), 0o644),
    }
    lock = lock_file(hosts)
    if host is None and lock.is_file():
        found[lock_file(Path(HOSTS)).name] = File(lock.read_bytes(), 0o644)
    watch = {"receivers": [], "rules": (document.get("observability") or {}).get("rules") or []}
    user_files.read(watch, root, shown)
    for path in watch["rules"]:
        found[f"{RULES}/{Path(path).name}"] = File((root / path).read_bytes(), 0o644)
    return dict(sorted(found.items()))


def release_id(files: Mapping[str, File]) -> str:
    """The start of the SHA-256 of every path, mode and content."""
    total = hashlib.sha256()
    for path, file in sorted(files.items()):
        total.update(f"{path}\0{file.mode:o}\0{len(file.content)}\0".encode() + file.content)
    return total.hexdigest()[:ID_LENGTH]


def write(files: Mapping[str, File], folder: Path) -> None:
    """The files of a release into a folder that is empty or not there."""
    for path, file in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)


def archive(files: Mapping[str, File]) -> bytes:
    """The same as a tar archive; equal files give equal bytes."""
    data = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=data, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path, file in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
    return data.getvalue()


def for_hosts(lock: str) -> str:
    """A lock file of pip's without what only a controller needs."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", lock)
    return "".join(entry for entry in entries if entry.split("==", 1)[0] not in NOT_ON_HOSTS)


def _program(root: Path) -> Iterator[tuple[str, File]]:
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root)
            if path.is_file() and not any(_is_left_out(part) for part in name.parts):
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                yield name.as_posix(), File(path.read_bytes(), mode)


def _is_left_out(name: str) -> bool:
    return name == "__pycache__" or (name.startswith(".") and not name.endswith(".j2"))


def _text(what: str, document: Mapping[str, object]) -> File:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    return File(f"# Written by `make deploy`: {what}.\n{text}".encode(), 0o644)
