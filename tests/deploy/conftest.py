"""Servers for the deploy tests, once for all of them, and a controller for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import docker
import pytest

from deploy.bed import Controller, Servers, StackHost, resolve_names
from deploy.bundle import bundle
from provision.bed.host_image import host_image
from provision.bed.playbooks import good


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    resolve_names()
    client = docker.from_env()
    found = Servers(client, host_image(client), bundle(), f"deploy-{os.getpid()}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    return Controller(tmp_path_factory.mktemp("controller"))


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, servers: Servers, controller: Controller) -> Iterator[StackHost]:
    """A server with Docker and nothing else, for the tests of a module."""
    made = servers.host(request.module.__name__.rpartition("test_")[2].replace("_", "-"))
    good(controller.play("docker.yml", made))
    yield made
    servers.remove(made)
