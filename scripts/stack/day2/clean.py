"""Everything that belongs to one stack of this box, and its end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker

from stack.adjust import applied_plan
from stack.day2 import volumes
from stack.day2.remove import delete
from stack.docker_host import PROJECT_LABEL, containers
from stack.errors import StackError
from stack.inputs import Place
from stack.put_back import stop


@dataclass(frozen=True)
class Belongings:
    """Names of containers and volumes; folders: the stack's own and its rendered trees. image: one of its own."""

    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    folders: tuple[str, ...]
    image: str

    @property
    def anything(self) -> bool:
        return bool(self.containers or self.volumes or self.folders)

    def told(self) -> str:
        """For a person, before anything is removed."""
        parts = {"containers": self.containers, "volumes": self.volumes, "folders": self.folders}
        return "of this stack: " + "; ".join(f"{kind} {', '.join(names)}" for kind, names in parts.items() if names)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def belongings(place: Place, build: Path, client: docker.DockerClient) -> Belongings:
    """What the stack has here now."""
    trees = [path.parent for path in sorted(build.glob("*/plan.json")) if _project(path) == place.project]
    folders = [folder for folder in (place.state, *trees) if folder.is_dir()]
    return Belongings(
        tuple(sorted(containers(client, place.project))),
        tuple(sorted(str(volume.name) for volume in volumes.of_project(client, place.project).values())),
        tuple(map(str, folders)),
        _image(place),
    )


def remove_all(place: Place, mine: Belongings, client: docker.DockerClient) -> None:
    """Stop the stack, requests in flight first, and remove what belongings() found."""
    if mine.containers:
        stop(place, client)
    for network in client.networks.list(filters={"label": f"{PROJECT_LABEL}={place.project}"}):
        network.remove()
    for name in mine.volumes:
        client.volumes.get(name).remove()
    for folder in dict.fromkeys((*mine.folders, str(place.state))):  # the lock alone makes the stack's own folder
        if Path(folder).is_dir():
            delete(Path(folder), mine.image, client)


def _project(plan: Path) -> str | None:
    try:
        return str(json.loads(plan.read_text())["project"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _image(place: Place) -> str:
    try:
        return str(applied_plan(place.live)["images"]["nginx"])
    except (StackError, KeyError):
        return "none"
