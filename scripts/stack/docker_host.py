"""The Docker engine of this host: connect, Compose, and the containers of one stack."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import requests
from docker.errors import DockerException
from docker.models.containers import Container

from stack.errors import InputError, StackError

PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
HASH_LABEL = "com.docker.compose.config-hash"
# One answer of the engine; copying gigabytes into an image is silent for minutes.
TIMEOUT_SECONDS = 600


def connect(timeout: int = TIMEOUT_SECONDS) -> docker.DockerClient:
    """A client of the engine that DOCKER_HOST or the default socket names. Raises InputError: no answer.

    timeout: seconds that it waits for any one answer.
    """
    try:
        client = docker.from_env(timeout=timeout)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        cause = str(error)
        if "Permission denied" in cause or "PermissionError" in cause:
            hint = "this user may not use it: run as root, or `sudo usermod -aG docker $USER` and log in again"
        else:
            hint = "is it running? `systemctl start docker`, or `scripts/setup.sh docker` to install and start it"
        raise InputError("Docker", f"the engine does not answer: {hint}") from None
    return client


def compose(build_dir: Path, *arguments: str, capture: bool = True) -> str:
    """Run the pinned Compose on a rendered stack; its output.

    Raises StackError with Compose's own last lines.
    """
    command = [str(Path(sysconfig.get_path("scripts")) / "docker-compose"), *arguments]
    try:
        done = subprocess.run(
            command, cwd=build_dir, env=_environment(build_dir), text=True, check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise StackError(f"{error.filename} is missing: `scripts/setup.sh venv`, or an incomplete tree") from None
    if done.returncode:
        tail = "\n".join(f"  {line}" for line in (done.stderr or "").strip().splitlines()[-8:])
        raise StackError(f"`docker-compose {' '.join(arguments)}` in {build_dir} failed ({done.returncode})\n{tail}")
    return done.stdout or ""


def _environment(build_dir: Path) -> dict[str, str]:
    # Compose lets the caller's environment win over the tree's .env: an exported STATE_DIR would move the stack
    dotenv = build_dir / ".env"
    lines = dotenv.read_text().splitlines() if dotenv.is_file() else []
    ours = {line.split("=", 1)[0] for line in lines}
    return {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_") and name not in ours}


def containers(client: docker.DockerClient, project: str) -> dict[str, Container]:
    """service -> container of a stack, stopped ones included."""
    found = client.containers.list(all=True, filters={"label": f"{PROJECT_LABEL}={project}"}, ignore_removed=True)
    return {container.labels[SERVICE_LABEL]: container for container in found}


def started(running: Mapping[str, Container]) -> dict[str, tuple[str, str]]:
    """service -> (container id, start time): differs where anything was recreated or restarted."""
    return {
        service: (container.id or "", container.attrs["State"]["StartedAt"]) for service, container in running.items()
    }


def condition(container: Container) -> str:
    """What Docker says of a container: its health where it has a check, else its status."""
    state = container.attrs["State"]
    if state["Status"] == "running" and "Health" in state:
        return str(state["Health"]["Status"])
    return str(state["Status"])


def get_page(url: str, timeout: float = 10) -> str:
    """The text of a container's page. Raises requests.RequestException."""
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment does not know the containers
    return session.get(url, timeout=timeout).text


def address(container: Container, network: str) -> str | None:
    """IP address of a container in one of its stack's networks (short name), or None."""
    project = container.labels[PROJECT_LABEL]
    networks = container.attrs["NetworkSettings"]["Networks"]
    return networks.get(f"{project}_{network}", {}).get("IPAddress") or None


def asked_at(engine: Container) -> str | None:
    """Address and port where this host asks an engine. None: it does not run, or follows another and never answers."""
    if here := address(engine, "engines"):
        return f"{here}:8000"
    told = _environment_of(engine)
    if engine.attrs["State"]["Status"] != "running" or "ENGINE_ADDRESS" not in told:
        return None
    return f"{told['ENGINE_ADDRESS']}:{told['ENGINE_PORT']}"


def ports_of(part: Container) -> Iterator[int]:
    """Ports of the host that a container has: published, or an engine's own where it has the host's network."""
    for bindings in (part.attrs["HostConfig"].get("PortBindings") or {}).values():
        yield from (int(binding["HostPort"]) for binding in bindings or () if binding["HostPort"])
    if port := _environment_of(part).get("ENGINE_PORT"):
        yield int(port)


def _environment_of(part: Container) -> dict[str, str]:
    return dict(line.split("=", 1) for line in part.attrs["Config"]["Env"] or () if "=" in line)
