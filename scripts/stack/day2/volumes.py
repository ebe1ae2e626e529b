"""A stack's named volumes, out of Docker and back, with owners and modes; on a box without any image, too.

A container that is never started, of an image without a file, has the volume: Docker copies from and to it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import docker
from docker.errors import NotFound
from docker.models.containers import Container
from docker.models.volumes import Volume

from stack.console import step
from stack.docker_host import PROJECT_LABEL, SERVICE_LABEL, containers

VOLUME_LABEL = "com.docker.compose.volume"
MOUNT = "volume"


def of_project(client: docker.DockerClient, project: str) -> dict[str, Volume]:
    """Short name -> volume; every one that Compose made for this stack."""
    found = client.volumes.list(filters={"label": f"{PROJECT_LABEL}={project}"})
    return {volume.attrs["Labels"][VOLUME_LABEL]: volume for volume in found}


def users(client: docker.DockerClient, project: str, volume: str) -> list[Container]:
    """The stack's containers that have this volume (its full name), stopped ones too."""
    return [
        part
        for part in containers(client, project).values()
        if any(mount.get("Name") == volume for mount in part.attrs["Mounts"])
    ]


@contextmanager
def resting(client: docker.DockerClient, project: str, volume: str) -> Iterator[list[str]]:
    """Stop what uses a volume, and start again what ran; names of those services."""
    ran = [part for part in users(client, project, volume) if part.status == "running"]
    names = [part.labels[SERVICE_LABEL] for part in ran]
    try:
        for part in ran:
            part.stop()
        yield names
    finally:
        for part in ran:
            part.start()


def save(client: docker.DockerClient, volume: str, target: Path) -> None:
    """Write a volume's content to a tar. What writes to it must rest."""
    with _holder(client, volume) as holder, step(f"copying {volume}"), target.open("wb") as file:
        pieces, _ = holder.get_archive(f"/{MOUNT}")
        for piece in pieces:
            file.write(piece)


def load(client: docker.DockerClient, project: str, name: str, content: IO[bytes]) -> None:
    """Make the volume anew with this content. No container may have it."""
    full = f"{project}_{name}"
    with suppress(NotFound):
        client.volumes.get(full).remove()
    client.volumes.create(full, labels={PROJECT_LABEL: project, VOLUME_LABEL: name})
    with _holder(client, full) as holder, step(f"filling {full}"):
        holder.put_archive("/", content)


@contextmanager
def _holder(client: docker.DockerClient, volume: str) -> Iterator[Container]:
    nothing = io.BytesIO()
    with tarfile.open(fileobj=nothing, mode="w"):
        pass
    answer = client.api.import_image_from_data(nothing.getvalue())
    image = json.loads(str(answer).splitlines()[-1])["status"]
    try:
        holder = client.containers.create(
            image, command=["nothing"], volumes={volume: {"bind": f"/{MOUNT}", "mode": "rw"}}, network_mode="none"
        )
        try:
            yield holder
        finally:
            holder.remove()
    finally:
        client.images.remove(image)
