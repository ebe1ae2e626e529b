"""Servers for the deploy tests, once for all of them, and a controller for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from deploy.bed import Controller, Servers, resolve_names
from deploy.bundle import bundle
from provision.bed.host_image import host_image


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
