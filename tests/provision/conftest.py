"""The test bed, once for all tests: repositories of stub packages, a network, and hosts as tests ask for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import docker
import pytest
from docker.errors import NotFound

from provision.bed.host_image import host_image, need
from provision.bed.hosts import Bed, Hardware, Host
from provision.bed.playbooks import LOCK, Inventory, Run, good, play
from provision.bed.repository import Repositories

Play = Callable[..., Run]


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repositories]:
    need("debootstrap", "gpg", "gpg-agent")
    found = Repositories(tmp_path_factory.mktemp("repositories"))
    try:
        found.publish("full")
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def bed(repositories: Repositories) -> Iterator[Bed]:
    client = docker.from_env()
    found = Bed(client, host_image(client), repositories.folder, f"provision-{os.getpid()}")
    yield found
    found.close()


@pytest.fixture(scope="session")
def run_play(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """run_play(playbook, hosts, *arguments, lock=, repository=, kill_at=, **variables) -> Run."""

    def run(
        playbook: str,
        hosts: Host | list[Host],
        *arguments: str,
        lock: dict[str, Any] | None = None,
        repository: str = "full",
        kill_at: str | None = None,
        **variables: Any,
    ) -> Run:
        inventory = Inventory(tmp_path_factory.mktemp("inventory"), f"{bed.web}/{repository}")
        several = hosts if isinstance(hosts, list) else [hosts]
        path = inventory.write(several, {**LOCK, **(lock or {})}, variables)
        return play(playbook, path, *arguments, kill_at=kill_at)

    return run


@pytest.fixture
def fresh(bed: Bed) -> Iterator[Callable[..., Host]]:
    """Makes bare hosts, gone after the test."""
    made: list[Host] = []

    def make(hardware: Callable[[Hardware], None] = lambda hardware: None, **options: Any) -> Host:
        made.append(bed.host(f"host{len(made)}-{os.urandom(2).hex()}", hardware, **options))
        return made[-1]

    yield make
    for host in made:
        with suppress(NotFound):
            bed.remove(host)


@pytest.fixture(scope="session")
def disks() -> dict[str, str]:
    """Images of provisioned hosts by the version of their driver, made as tests ask for them."""
    return {}


@pytest.fixture
def provisioned(bed: Bed, fresh: Callable[..., Host], run_play: Play, disks: dict[str, str]) -> Callable[..., Host]:
    """Makes hosts that provision.yml has been run on, booted since; by hand it would take minutes for each."""

    def make(version: str = LOCK["driver"]["version"], **options: Any) -> Host:
        if version not in disks:
            host = fresh(lambda hardware: hardware.update(nouveau=False))
            good(run_play("provision.yml", host, lock={"driver": {"version": version, "modules": "open"}}))
            disks[version] = bed.snapshot(host, version)
            bed.remove(host)
        return fresh(image=disks[version], **options)

    return make
