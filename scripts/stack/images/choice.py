"""Which image each role runs, by where images come from: a registry, an archive, or the folders that build them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.config.schema import Images
from stack.errors import InputError, Problem, StackError
from stack.images.archive import ArchiveList, read_list
from stack.images.pins import Device, ImagePin, Pins, Source, load_pins

FOLDER = Path("compose/images")
BUILT = "vllm-onprem"


@dataclass(frozen=True)
class Named:
    """What an image is, wherever it came from: repository:tag as pinned or as built, and the registry's digest."""

    name: str
    digest: str | None


@dataclass(frozen=True)
class Chosen:
    """references: role -> what Docker is asked for. pinned: role -> what that is.

    built: the images come from compose/images/, maybe by way of an archive. contents: the list of that archive.
    """

    references: dict[str, str]
    pinned: dict[str, Named]
    built: bool
    contents: ArchiveList | None = None


def choose(
    root: Path,
    settings: Images,
    source: Source,
    device: Device,
    unwanted: frozenset[str] = frozenset(),
    contents: ArchiveList | None = None,
) -> Chosen:
    """The images of a stack. unwanted: roles that its file turns off.

    registry: [mirror/]repository:tag[@digest]. build: vllm-onprem/<folder>:<version>-<content hash>. archive: image
    IDs, as loading loses digests. contents: an archive's list, where the archive itself is on another host.
    Raises InputError: building on cuda, an archive of other images.
    """
    pins = load_pins(root).less(unwanted)
    if source == "registry":
        roles = pins.of(device)
        references = pulled_references(roles, settings.mirror)
        return Chosen(references, {role: Named(pin.reference, pin.digest) for role, pin in roles.items()}, built=False)
    if source == "build":
        references = built_references(root, pins, device)
        return Chosen(references, {role: Named(name, None) for role, name in references.items()}, built=True)
    path = archive_path(root, settings)
    contents = contents or read_list(path)
    _check(path, contents, root, pins, device)
    images = {role: contents.images[role] for role in (pins.buildable(device) if contents.built else pins.of(device))}
    pinned = {role: Named(image.name, image.digest) for role, image in images.items()}
    return Chosen({role: image.id for role, image in images.items()}, pinned, contents.built, contents)


def archive_path(root: Path, settings: Images) -> Path:
    """The archive that a stack file names. Raises InputError when it names none."""
    if settings.archive is None:
        raise InputError("images.archive", "not set: the file that `make images-save` wrote")
    return root / settings.archive


def pulled_references(pins: Mapping[str, ImagePin], mirror: str | None = None) -> dict[str, str]:
    """Role -> reference at the registry, or at the mirror in its place."""
    return {role: at(pin, mirror) + (f"@{pin.digest}" if pin.digest else "") for role, pin in pins.items()}


def at(pin: ImagePin, mirror: str | None) -> str:
    """repository:tag where it is pulled from."""
    return f"{mirror.rstrip('/')}/{pin.reference}" if mirror else pin.reference


def built_references(root: Path, pins: Pins, device: Device) -> dict[str, str]:
    """Role -> image built here; a changed folder is a new tag, and an existing tag needs no build.

    Raises InputError for one that is only pulled, and not optional.
    """
    chosen: dict[str, str] = {}
    for role, pin in pins.buildable(device).items():
        if pin.build is None:
            raise InputError(
                "images.source",
                f"'build' cannot make the {role} image for device {device}: {pin.reference} is only pulled; use"
                " registry, with images.mirror where Docker Hub is out of reach, or archive",
            )
        chosen[role] = built_reference(root, pins, pin.build)
    return chosen


def built_reference(root: Path, pins: Pins, name: str) -> str:
    """Reference of the image that compose/images/<name> builds."""
    build = pins.builds[name]
    digest = content_hash([root / FOLDER / "base", root / FOLDER / name], build.suite)
    return f"{BUILT}/{name}:{build.version}-{digest}"


def base_reference(root: Path, suite: str) -> str:
    """Reference of the base image of one Debian suite."""
    return f"{BUILT}/base:{suite}-{content_hash([root / FOLDER / 'base'], suite)}"


def built_name(reference: str) -> str:
    """The folder under compose/images that a built reference comes from. Raises StackError for any other."""
    match = re.fullmatch(rf"{BUILT}/([a-z0-9-]+):.+", reference)
    if not match:
        raise StackError(f"{reference} is not an image that is built here")
    return match.group(1)


def content_hash(folders: list[Path], salt: str = "") -> str:
    """12 hex digits of the paths and bytes of every file in the folders; hidden files do not count."""
    total = hashlib.sha256(salt.encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith((".", "__")) for part in name.parts):
                content = path.read_bytes()
                total.update(f"\0{name.as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:12]


def _check(path: Path, contents: ArchiveList, root: Path, pins: Pins, device: Device) -> None:
    """An archive holds what this checkout pins, for this device. Raises InputError with every difference."""
    problems = []
    for role, pin in (pins.buildable(device) if contents.built else pins.of(device)).items():
        found = contents.images.get(role)
        if contents.built:
            wanted = built_reference(root, pins, pin.build) if pin.build else f"{pin.reference}, which is only pulled"
        else:
            wanted = pin.reference
        if found is None:
            off = f", or turn {role} off" if pin.optional else ""
            problems.append(Problem(role, f"not in the archive; this checkout runs {wanted}{off}"))
        elif found.name != wanted:
            problems.append(Problem(role, f"the archive holds {found.name}, this checkout runs {wanted}"))
        elif pin.digest and found.digest and found.digest != pin.digest:
            problems.append(Problem(role, f"the archive holds {found.digest}, the lock says {pin.digest}"))
    if problems:
        advice = f"save it anew (`make images-save`) with a checkout of this version and a stack for device {device}"
        raise InputError(str(path), [*problems, Problem("", advice)])
