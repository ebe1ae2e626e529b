"""Images into an archive and out of it, by way of Docker's engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import docker
import docker.errors
import requests
from docker.models.images import Image

from stack.disk_space import gib
from stack.docker_host import TIMEOUT_SECONDS
from stack.errors import StackError
from stack.images import archive
from stack.images.archive import Archived, ArchiveList, check_sum, read_list
from stack.images.choice import Chosen
from stack.images.registry import said
from stack.images.space import docker_folder, need_space
from stack.progress import Progress

Say = Callable[[str], None]


def present(client: docker.DockerClient, reference: str) -> bool:
    """True when the engine holds this image."""
    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        return False
    return True


def load(path: Path, ids: set[str], say: Say, client: docker.DockerClient) -> list[str]:
    """Load an archive unless the engine holds all of these images; those that were missing, sorted.

    The checksum of the whole file is compared first. Raises InputError (a wrong one) and StackError.
    """
    missing = sorted(image for image in ids if not present(client, image))
    if not missing:
        return []
    size = path.stat().st_size
    sizes = read_list(path).sizes()
    # the engine unpacks the whole archive before it takes what it lacks
    need_space(f"loading {path}", [(docker_folder(client), size + sum(sizes[image] for image in missing))])
    with Progress(say) as progress:
        name = path.name
        with progress.step(name, "comparing the checksum"):
            check_sum(path, lambda read: progress.detail(name, f"checksum, {gib(read)} of {gib(size)}"))
        with progress.step(name, "loading into Docker"), path.open("rb") as file:
            error = _send(client, file, lambda sent: progress.detail(name, f"loading, {gib(sent)} of {gib(size)}"))
    left = [image for image in missing if not present(client, image)]
    if left:
        why = error or (
            "Docker took the archive and names them otherwise: its image store (`docker info`: Storage Driver) is of"
            " another kind than that of the machine which saved it; save it on a machine with the same"
        )
        raise StackError(
            f"{path} could not be loaded: {len(left)} of {len(ids)} images are missing ({', '.join(left)}): {why}"
        )
    return missing


def save(path: Path, chosen: Chosen, say: Say, client: docker.DockerClient) -> str:
    """Write a stack's images, which are here, into an archive; its SHA-256. Raises StackError."""
    held = {role: client.images.get(reference) for role, reference in chosen.references.items()}
    contents = ArchiveList(
        built=chosen.built,
        images={
            role: Archived(id=str(image.id), name=chosen.pinned[role].name, digest=chosen.pinned[role].digest,
                           size=int(image.attrs["Size"]))
            for role, image in held.items()
        },
    )  # fmt: skip
    total = sum(contents.sizes().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    # the engine writes all of it to its own disk first
    need_space(f"saving images to {path}", [(path.parent, total), (docker_folder(client), total)])
    names = {str(image.id): _name(image, chosen.pinned[role].name) for role, image in held.items()}
    with Progress(say) as progress, progress.step(path.name, f"saving {len(names)} images, {gib(total)}"):
        return archive.write(
            path, contents, _saved(sorted(names.values()), client),
            lambda count: progress.detail(path.name, f"saving, {gib(count)} of {gib(total)}"),
        )  # fmt: skip


def _name(image: Image, pinned: str) -> str:
    """A tag to save it under, as loading gives tags back and an image without any is the first to be pruned."""
    if not image.tags:
        repository, _, tag = pinned.rpartition(":")
        image.tag(repository, tag)
        return pinned
    return next((tag for tag in image.tags if tag.endswith(pinned)), str(image.tags[0]))


def _saved(names: list[str], client: docker.DockerClient) -> Iterator[bytes]:
    # one request for all of them, which the SDK has no call for: images that share layers are written once
    url = f"{client.api.base_url}/v{client.api.api_version}/images/get"
    try:
        with client.api.get(url, params={"names": names}, stream=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code != 200:
                raise StackError(f"Docker cannot save {', '.join(names)}: {answer.text.strip()}")
            yield from answer.iter_content(archive.PIECE)
    except requests.RequestException as error:
        raise StackError(f"Docker broke off while saving {', '.join(names)}: {error}") from None


def _send(client: docker.DockerClient, file: BinaryIO, tell: Callable[[int], None]) -> str:
    """Give an archive to the engine; what it says went wrong, or ""."""

    def pieces() -> Iterator[bytes]:
        count = 0
        while piece := file.read(archive.PIECE):
            yield piece
            tell(count := count + len(piece))

    error = ""
    try:
        for event in client.api.load_image(pieces()):  # type: ignore[no-untyped-call]
            error = error or str(event.get("error", ""))
    except (docker.errors.DockerException, requests.RequestException) as failure:
        error = said(failure)
    return error
