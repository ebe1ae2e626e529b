"""Stand-ins for Docker's SDK: containers as `docker inspect` shows them (constructed), and an engine that has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
from docker.models.containers import Container


def container(
    service: str = "nginx",
    *,
    project: str = "vllm-onprem",
    folder: str = "",
    status: str = "running",
    health: str | None = None,
    ports: dict[str, int] | None = None,
    gpus: tuple[str, ...] = (),
    addresses: dict[str, str] | None = None,
    environment: tuple[str, ...] = (),
) -> Container:
    """One container of a stack. ports: address -> published port; addresses: network's full name -> IP address."""
    state: dict[str, Any] = {"Status": status, "StartedAt": "2025-01-01T00:00:00Z"}
    if health:
        state["Health"] = {"Status": health}
    bindings = [{"HostIp": address, "HostPort": str(port)} for address, port in (ports or {}).items()]
    attributes = {
        "State": state,
        "RestartCount": 0,
        "Config": {"Env": list(environment)},
        "HostConfig": {
            "PortBindings": {"8443/tcp": bindings} if bindings else None,
            "DeviceRequests": [{"DeviceIDs": [f"nvidia.com/gpu={uuid}" for uuid in gpus]}] if gpus else None,
        },
        "NetworkSettings": {"Networks": {name: {"IPAddress": ip} for name, ip in (addresses or {}).items()}},
    }
    labels = {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        "com.docker.compose.project.working_dir": folder,
    }
    return cast(Container, SimpleNamespace(id=f"id-{service}", status=status, labels=labels, attrs=attributes))


def engine(
    *containers: Container, info: dict[str, Any] | None = None, image_env: tuple[str, ...] = ()
) -> docker.DockerClient:
    """An engine that holds these containers. info: what it says of itself; image_env: environment of every image."""

    def listed(*, filters: dict[str, str], **_: object) -> list[Container]:
        key, value = filters["label"].split("=", 1)
        return [container for container in containers if container.labels[key] == value]

    image = SimpleNamespace(attrs={"Config": {"Env": list(image_env)}})
    fake = SimpleNamespace(
        containers=SimpleNamespace(list=listed), info=lambda: info or {}, images=SimpleNamespace(get=lambda _: image)
    )
    return cast(docker.DockerClient, fake)
