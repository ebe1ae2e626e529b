"""Things that may go, gone. Files of the containers' users too, whoever runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import docker
from docker.errors import APIError

from stack import image_record
from stack.day2.unused import Unused
from stack.images.carry import present
from stack.models import lock as models_lock


def remove(one: Unused, shared: Path, image: str, client: docker.DockerClient) -> str | None:
    """Remove one unused thing; why not, where Docker or the system refuses. image: one of ours that is here."""
    try:
        if one.kind == "image":
            client.images.remove(one.what)
            image_record.drop(shared, [one.what])
        else:
            delete(Path(one.what), image, client)
            if one.kind == "model":
                models_lock.forget(shared / "models.lock", str(Path(one.what).relative_to(shared / "models")))
    except (APIError, OSError) as error:
        return str(getattr(error, "explanation", None) or error)
    return None


def delete(folder: Path, image: str, client: docker.DockerClient) -> None:
    """Delete a folder and everything in it; by a container where its files belong to another user."""
    try:
        shutil.rmtree(folder)
    except PermissionError:
        if not present(client, image):
            raise
        client.containers.run(
            image, entrypoint=["rm"], command=["-rf", "--", f"/folder/{folder.name}"], user="0:0", network_mode="none",
            volumes={str(folder.parent): {"bind": "/folder", "mode": "rw"}}, remove=True,
        )  # fmt: skip
