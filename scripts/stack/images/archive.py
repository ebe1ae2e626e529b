"""The file that carries images to a host without a registry: what `docker save` writes, with a list in front.

`docker load` takes it too. Beside it lies <archive>.sha256, which `sha256sum --check` reads.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stack.disk_space import gib, is_full
from stack.errors import InputError, StackError

LIST = "vllm-onprem-images.json"
LIST_BYTES = 2**20  # far more than any list has
PIECE = 2**20

Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Archived(BaseModel):
    """One image. name: repository:tag as pinned, or the tag it was built under. size: bytes in Docker's store."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Sha256
    name: str
    digest: Sha256 | None
    size: int = Field(ge=0)


class ArchiveList(BaseModel):
    """What an archive holds, by role. built: made from compose/images/."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    built: bool
    images: dict[str, Archived]

    def sizes(self) -> dict[str, int]:
        """Image ID -> bytes; several roles may run one image."""
        return {image.id: image.size for image in self.images.values()}


def sums_of(archive: Path) -> Path:
    """The checksum file of an archive."""
    return archive.with_name(f"{archive.name}.sha256")


def read_list(archive: Path) -> ArchiveList:
    """The list in front of an archive; the rest is not read. Raises InputError."""
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first and first.name == LIST and first.size <= LIST_BYTES else None
            if content is not None:
                return ArchiveList.model_validate_json(content.read())
    except OSError as error:
        what = f"{error.strerror}: images.archive names the file that `make images-save` wrote; copy it to this host"
        raise InputError(str(archive), what) from None
    except (tarfile.TarError, ValidationError):
        pass
    raise InputError(str(archive), "not an archive of `make images-save`, or cut off at its beginning; copy it again")


def write(archive: Path, contents: ArchiveList, saved: Iterable[bytes], tell: Callable[[int], None]) -> str:
    """Write an archive and its checksum file, each whole or not at all; the SHA-256.

    saved: what `docker save` streams. tell: takes the bytes written. Raises StackError: no space, or Docker broke off.
    """
    partial = archive.with_name(f".{archive.name}.partial")
    total, count = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for piece in chain([_member(contents.model_dump_json(indent=1).encode())], saved):
                file.write(piece)
                total.update(piece)
                tell(count := count + len(piece))
        if not _is_whole(partial):
            raise StackError("Docker broke off while it saved the images: see its log, then run this again")
        partial.replace(archive)
        sums_of(archive).write_text(f"{total.hexdigest()}  {archive.name}\n")
    except OSError as error:
        why = f"the disk is full after {gib(count)}" if is_full(error) else error.strerror or error
        raise StackError(f"{archive} could not be written: {why}") from None
    finally:
        partial.unlink(missing_ok=True)
    return total.hexdigest()


def check_sum(archive: Path, tell: Callable[[int], None]) -> None:
    """Read a whole archive and compare it with its checksum file. tell: takes the bytes read. Raises InputError."""
    sums = sums_of(archive)
    try:
        wanted = sums.read_text().split(maxsplit=1)[0]
    except (OSError, UnicodeDecodeError, IndexError):
        raise InputError(
            str(sums), f"not readable: `make images-save` wrote it beside {archive.name}; copy both"
        ) from None
    total, count = hashlib.sha256(), 0
    with archive.open("rb") as file:
        while piece := file.read(PIECE):
            total.update(piece)
            tell(count := count + len(piece))
    if total.hexdigest() != wanted:
        raise InputError(
            str(archive),
            f"SHA-256 of its {count} bytes is {total.hexdigest()}, {sums.name} says {wanted}: cut off, damaged or"
            " another one; copy both files again. Nothing was loaded.",
        )


def _is_whole(path: Path) -> bool:
    """Whether Docker came to its end: when it cannot go on, it writes why into the stream as if that were the rest."""
    try:
        with tarfile.open(path, "r:") as tar:
            return "manifest.json" in tar.getnames()
    except tarfile.TarError:
        return False


def _member(content: bytes) -> bytes:
    """The list as the first member of a tar archive; what `docker save` writes follows it as it is."""
    header = tarfile.TarInfo(LIST)
    header.size = len(content)
    return header.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")
