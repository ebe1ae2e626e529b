"""A model from a tar archive: read whole and judged first, then unpacked. Only plain files come out of it."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from stack.disk_space import check_space, gib, is_full
from stack.errors import StackError
from stack.models.files import is_safe_name, wanted
from stack.models.transfer import Meter


@dataclass(frozen=True)
class Contents:
    """sha256: of the archive itself. top: the folder in it that holds the model, "" or ending in /. files: sizes."""

    sha256: str
    top: str
    files: dict[str, int]


def inspect(archive: Path, sha256: str | None, marker: str = "config.json") -> Contents:
    """Read an archive to its end without writing anything.

    Raises StackError: not readable, cut off, another checksum, or names and links that lead out of it.
    """
    sizes: dict[str, int] = {}
    try:
        with archive.open("rb") as file:
            reader = _Summing(file)
            for member in _members(archive, cast(BinaryIO, reader)):
                sizes[_name(member)] = member.size
            while reader.read(2**20):
                pass  # what comes after the last member belongs to the checksum
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise StackError(
            f"{archive} cannot be read as a tar archive: {error or type(error).__name__}; copy it again"
        ) from None
    found = reader.sums.hexdigest()
    if sha256 is not None and found != sha256:
        raise StackError(
            f"{archive} has SHA-256 {found}, source.sha256 says {sha256}: copy the archive again, or correct the stack"
            " file. Nothing was unpacked."
        )
    tops = [name.removesuffix(marker) for name in sizes if PurePosixPath(name).name == marker]
    if not tops:
        raise StackError(f"{archive} holds no {marker}: not a model")
    top = min(tops, key=lambda name: (name.count("/"), name))
    inside = {name.removeprefix(top): size for name, size in sizes.items() if name.startswith(top)}
    return Contents(found, top, {name: inside[name] for name in wanted(inside)})


def unpack(archive: Path, contents: Contents, folder: Path, meter: Meter) -> None:
    """Write the files of an inspected archive into a new folder. Raises StackError; the folder is gone then."""
    check_space(folder, meter.total, str(archive))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                name = _name(member).removeprefix(contents.top) if member.isfile() else ""
                if contents.files.get(name) != member.size or not _name(member).startswith(contents.top):
                    continue
                source = tar.extractfile(member)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    while source is not None and (piece := source.read(2**22)):
                        out.write(piece)
                        meter.add(len(piece))
    except (OSError, EOFError, tarfile.TarError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        full = isinstance(error, OSError) and is_full(error)
        advice = f"the disk is full; {gib(meter.total)} are needed" if full else str(error)
        raise StackError(f"{archive} could not be unpacked into {folder.parent}: {advice}") from None


def _members(archive: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    # as a stream: one pass over the file, also where it is compressed
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            if member.isdir():
                continue
            if member.issym() or member.islnk():
                raise StackError(
                    f"{archive}: {member.name!r} is a link; pack the files themselves:"
                    " tar --dereference --hard-dereference"
                )
            if not member.isfile() or not is_safe_name(member.name):
                raise StackError(f"{archive}: {member.name!r} is no plain file inside the archive; nothing is unpacked")
            yield member


def _name(member: tarfile.TarInfo) -> str:
    return str(PurePosixPath(member.name))  # without ./ in front


class _Summing:
    """A file that adds up the checksum of what is read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sums = hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self.sums.update(piece)
        return piece
