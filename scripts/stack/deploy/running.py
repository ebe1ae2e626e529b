"""What a host's containers are by now, as the order of a fleet's deploy needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import docker
from docker.models.containers import Container

from stack.docker_host import HASH_LABEL, condition, containers, ports_of
from stack.gpu.cdi import uuid_of

ENGINE = "engine-"


@dataclass(frozen=True)
class RunningEngine:
    """An engine's container. hash: Compose's, of the configuration it was made from. ports: those of the host that it
    has. serving: whether it is healthy.
    """

    hash: str
    gpus: tuple[str, ...]
    ports: tuple[int, ...]
    serving: bool


def running_engines(project: str, client: docker.DockerClient) -> dict[str, dict[str, Any]]:
    """Engine -> RunningEngine as plain data, of every engine of a stack that runs here."""
    return {
        name: asdict(
            RunningEngine(
                part.labels.get(HASH_LABEL, ""), tuple(_gpus(part)), tuple(ports_of(part)), condition(part) == "healthy"
            )
        )
        for name, part in sorted(containers(client, project).items())
        if name.startswith(ENGINE) and part.status == "running"
    }


def engine_from(told: dict[str, Any]) -> RunningEngine:
    """A RunningEngine of plain data."""
    return RunningEngine(told["hash"], tuple(told["gpus"]), tuple(told["ports"]), told["serving"])


def _gpus(part: Container) -> Iterator[str]:
    for request in part.attrs["HostConfig"].get("DeviceRequests") or ():
        yield from map(uuid_of, request.get("DeviceIDs") or ())
