"""A backup as one tar: manifest.json first, then what it lists. Nothing of it is believed before it is checked."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from stack.errors import InputError

FORMAT, VERSION = "vllm-onprem backup", 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 16 * 2**20
PIECE = 2**20
# Files of the stack's state folder, its volumes as tars of their own, what was fetched, and the stack file to read.
MEMBER = re.compile(r"stack\.yaml|models\.lock|volumes/[a-z0-9][a-z0-9_-]*\.tar|state/[^\0]+")


@dataclass(frozen=True)
class Entry:
    """One member: size in bytes, SHA-256, and what it is restored with."""

    size: int
    sha256: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Manifest:
    """What a backup is: of which stack, from when (UTC) and where, and each member.

    folders: folder of the state folder -> its mode, uid and gid.
    """

    stack: str
    made: str
    host: str
    vllm: str
    members: Mapping[str, Entry]
    folders: Mapping[str, tuple[int, int, int]]

    @property
    def volumes(self) -> list[str]:
        """Short names of the volumes in it."""
        return sorted(path[8:-4] for path in self.members if path.startswith("volumes/"))


def entry_of(path: Path) -> Entry:
    """The entry of a file as it is."""
    about = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(about.st_size, digest, about.st_mode & 0o7777, about.st_uid, about.st_gid)


def owner_of(folder: Path) -> tuple[int, int, int]:
    """Mode, uid and gid."""
    about = folder.stat()
    return about.st_mode & 0o7777, about.st_uid, about.st_gid


def write(target: Path, manifest: Manifest, sources: Mapping[str, Path]) -> None:
    """Write an archive of mode 0600, there whole or not at all. sources: member -> file, for every member."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    try:
        with tarfile.open(partial, "w") as archive:
            document = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
            data = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
            archive.addfile(_info(MANIFEST, len(data)), io.BytesIO(data))
            for name, entry in manifest.members.items():
                with sources[name].open("rb") as file:
                    archive.addfile(_info(name, entry.size), file)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Manifest, tarfile.TarFile]]:
    """(manifest, archive) of a backup every byte of which was checked. Raises InputError: damaged, or none of ours."""
    try:
        with tarfile.open(path, "r:") as archive:
            manifest = _checked(path, archive)
            yield manifest, archive
    except (tarfile.TarError, EOFError) as error:
        raise InputError(str(path), f"damaged, or no backup: {error}. Nothing was changed.") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if error.filename != str(path):
            raise
        raise InputError(str(path), f"cannot be read: {error.strerror}") from None


def stream(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A member's content. Raises KeyError."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _checked(path: Path, archive: tarfile.TarFile) -> Manifest:
    members = archive.getmembers()
    if not members or members[0].name != MANIFEST or members[0].size > MANIFEST_BYTES:
        raise InputError(str(path), "no backup of this project: it does not begin with manifest.json")
    manifest = _manifest(path, stream(archive, MANIFEST).read())
    seen: set[str] = set()
    for member in members[1:]:
        entry = manifest.members.get(member.name)
        if entry is None or not member.isreg() or member.name in seen:
            raise InputError(str(path), f"it holds {member.name!r}, which its manifest does not list as a file")
        if member.size != entry.size or _digest(stream(archive, member.name)) != entry.sha256:
            raise InputError(str(path), f"damaged: {member.name} is not what was backed up. Nothing was changed.")
        seen.add(member.name)
    missing = sorted(manifest.members.keys() - seen)
    if missing:
        raise InputError(str(path), f"cut off: {', '.join(missing[:3])} missing. Nothing was changed.")
    return manifest


def _manifest(path: Path, data: bytes) -> Manifest:
    try:
        document: dict[str, Any] = json.loads(data)
        kind = (document.pop("format"), document.pop("version"))
        manifest = TypeAdapter(Manifest).validate_python(document) if kind == (FORMAT, VERSION) else None
    except (ValueError, KeyError, TypeError, AttributeError):  # a ValidationError is a ValueError
        raise InputError(str(path), "damaged, or no backup of this project: its manifest cannot be read") from None
    if manifest is None:
        raise InputError(str(path), "a backup in a format that this version of the project does not read")
    names = [*manifest.members, *(f"state/{folder}" for folder in manifest.folders)]
    bad = [name for name in names if not MEMBER.fullmatch(name) or {"..", ".", ""} & set(name.split("/"))]
    if bad:
        raise InputError(str(path), f"not a backup of this project: {bad[0]!r} is no place to restore to")
    return manifest


def _digest(file: IO[bytes]) -> str:
    total = hashlib.sha256()
    while piece := file.read(PIECE):
        total.update(piece)
    return total.hexdigest()


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info
