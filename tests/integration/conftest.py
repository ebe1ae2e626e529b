"""The CPU stack, brought up once for all integration tests by the command that a user runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml
from docker.models.containers import Container

from stack.docker_host import PROJECT_LABEL, SERVICE_LABEL, connect, containers, started
from stack.secrets import engine_key
from stack_removal import remove_stack

ROOT = Path(__file__).resolve().parents[2]
STACK_FILE = ROOT / "tests/integration/stack.yaml"
STATE = ROOT / ".test-state"
URL = "https://localhost:18443"
PROJECT = "vllm-onprem-test"
ENGINES = ("engine-toy-0", "engine-toy-1")
# of the block that is kept for tests of network devices (RFC 2544)
OUTSIDE, OUTSIDE_GATEWAY, OUTSIDE_PORT = "198.18.255.2", "198.18.255.1", 9999


@dataclass(frozen=True)
class Done:
    """What a finished command printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Stack:
    """The running stack as tests use it."""

    client: docker.DockerClient
    first_up: Done

    @property
    def state(self) -> Path:
        return STATE / "state" / "stacks" / PROJECT

    @property
    def key(self) -> str:
        return (self.state / "secrets/api-keys/default").read_text().strip()

    @property
    def engine_key(self) -> str:
        """What HAProxy sends to engines."""
        keys = engine_key.load(self.state)
        assert keys
        return keys.sends

    @property
    def ca_file(self) -> Path:
        return self.state / "gateway.crt"

    def started(self) -> dict[str, tuple[str, str]]:
        """service -> (container id, start time)."""
        return started(containers(self.client, PROJECT))

    def part(self, service: str) -> Container:
        """The container of a service, as it is now. Asked for alone: all of them take seconds on a loaded machine."""
        labels = [f"{PROJECT_LABEL}={PROJECT}", f"{SERVICE_LABEL}={service}"]
        (found,) = self.client.containers.list(all=True, filters={"label": labels})
        return found

    def post(
        self, path: str, body: Any, key: str | None = None, *, stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:  # fmt: skip
        """One request, never retried. key: another than the stack's own, empty for none. headers: further ones."""
        key = self.key if key is None else key
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        return requests.post(
            URL + path, json=body, headers={**sent, **(headers or {})}, verify=str(self.ca_file), timeout=60,
            stream=stream,
        )  # fmt: skip

    def script(self, name: str, *arguments: str, stack: Path = STACK_FILE) -> Done:
        """Run scripts/<name>.py on a stack file."""
        return run_script(name, str(stack), *arguments)

    def changed(self, folder: Path, **sections: object) -> Path:
        """The stack file with some top-level keys replaced."""
        document = yaml.safe_load(STACK_FILE.read_text()) | sections
        path = folder / "stack.yaml"
        path.write_text(yaml.safe_dump(document))
        return path


def run_script(name: str, *arguments: str, environment: dict[str, str] | None = None) -> Done:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    client = connect()
    remove(client)
    try:
        first_up = run_script("up", str(STACK_FILE))
        assert first_up.code == 0, first_up.err
        yield Stack(client, first_up)
    finally:
        remove(client)


@pytest.fixture
def outside() -> Iterator[str]:
    """Address of a machine beyond this one: a network namespace with a listener on OUTSIDE_PORT."""
    name, here, there = "vllm-onprem-out", "vllm-onprem-0", "vllm-onprem-1"
    listener = f"import socket, time; s = socket.create_server(('{OUTSIDE}', {OUTSIDE_PORT})); time.sleep(120)"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("address", "add", f"{OUTSIDE_GATEWAY}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "address", "add", f"{OUTSIDE}/30", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
        _ip("-n", name, "route", "add", "default", "via", OUTSIDE_GATEWAY)
        with subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", listener]) as process:
            yield OUTSIDE
            process.kill()
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)


def remove(client: docker.DockerClient, project: str = PROJECT, state: Path = STATE) -> None:
    """End and delete everything of a test stack, and nothing else."""
    remove_stack(client, project, state)
