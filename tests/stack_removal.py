"""A stack that a test or a bench brought up is gone again, and nothing else is."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import NotFound

from stack.docker_host import containers


def remove_stack(client: docker.DockerClient, project: str, state: Path) -> None:
    """End and delete every container, network and volume of a project, and its state folder."""
    for container in containers(client, project).values():
        with suppress(NotFound):  # `up` that failed may still be removing what it started
            container.remove(force=True, v=True)
    mine = {"label": f"com.docker.compose.project={project}"}
    for network in client.networks.list(filters=mine):
        network.remove()
    for volume in client.volumes.list(filters=mine):
        volume.remove()
    shutil.rmtree(state, ignore_errors=True)
