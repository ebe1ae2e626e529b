"""The fleet, once for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import docker
import pytest

from deploy.bed import Servers, resolve_names
from deploy.bundle import bundle
from fleet.fleet import SUBNET, Fleet
from provision.bed.host_image import host_image


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    resolve_names()
    client = docker.from_env()
    servers = Servers(client, host_image(client), bundle(), f"fleet-{os.getpid()}", SUBNET)
    try:
        made = Fleet(servers, tmp_path_factory.mktemp("fleet"))
        yield made
        print("\n| event | asked: whole + streams | failed |\n|---|---|---|", *made.results, sep="\n")
    finally:
        servers.close()
