"""What must hold on a host before anything is changed: every problem at once, each with the key to change."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.models.containers import Container

from stack import preflight
from stack.errors import InputError
from stack.hardware import Gpu
from stack.inputs import Inputs, add_arguments, gather
from unit import fake_docker, given
from unit.conftest import WriteStack

GPUS = given.gpus(2)
Here = Callable[[tuple[Gpu, ...], tuple[Gpu, ...]], None]
Problems = Callable[..., list[str]]


@pytest.fixture
def port() -> Iterator[int]:
    """A loopback port that somebody else has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def free_ports() -> str:
    """Sections with ports that nobody has."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
        https, prometheus, alertmanager = (probe.getsockname()[1] for probe in (one, two, three))
    return (
        f"gateway: {{listen: 127.0.0.1, https_port: {https}}}\n"
        f"observability: {{prometheus_port: {prometheus}, alertmanager_port: {alertmanager}}}\n"
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Says which GPUs of this box are idle and busy."""

    def say(idle: tuple[Gpu, ...], busy: tuple[Gpu, ...]) -> None:
        for module in ("inputs", "preflight"):
            monkeypatch.setattr(f"stack.{module}.find_gpus", lambda: (idle, busy))

    return say


@pytest.fixture
def inputs(write_stack: WriteStack, tmp_path: Path, free_ports: str) -> Callable[[str, str], Inputs]:
    def make(device: str = "cpu", ports: str = "") -> Inputs:
        path = write_stack(
            f"device: {device}\nmodels: [{{served_model_name: toy, source: {{toy: true}}}}]\n"
            f"paths: {{state: {tmp_path}/state}}\n{ports or free_ports}"
        )
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return gather(parser.parse_args([str(path)]))

    return make


def problems(found: Inputs, *running: Container, runtimes: tuple[str, ...] = ("runc", "nvidia")) -> list[str]:
    """Key paths of what is wrong; none when all is well."""
    try:
        preflight.check(found, found.plans()[0], fake_docker.engine(*running, runtimes=runtimes))
    except InputError as error:
        return given.wheres(error)
    return []


def test_a_host_with_free_ports_and_disk_is_fine(inputs: Callable[..., Inputs]) -> None:
    assert problems(inputs(), runtimes=("runc",)) == []


def test_a_port_that_somebody_else_has_is_named_by_its_key(inputs: Callable[..., Inputs], port: int) -> None:
    found = inputs(ports=f"gateway: {{listen: 127.0.0.1, https_port: {port}}}\n")
    assert "gateway.https_port" in problems(found)


def test_a_port_that_the_stack_itself_has_is_no_problem(inputs: Callable[..., Inputs], port: int) -> None:
    found = inputs(ports=f"gateway: {{listen: 127.0.0.1, https_port: {port}}}\n")
    live = str(found.live)
    assert "gateway.https_port" not in problems(found, fake_docker.container(folder=live, ports={"127.0.0.1": port}))
    # what is published but does not run holds no port
    stopped = fake_docker.container(folder=live, ports={"127.0.0.1": port}, status="exited")
    assert "gateway.https_port" in problems(found, stopped)


def test_an_address_that_is_not_this_hosts_is_named(inputs: Callable[..., Inputs]) -> None:
    assert "gateway.https_port" in problems(inputs(ports="gateway: {listen: 192.0.2.1}\n"))


def test_a_stack_of_the_same_name_from_another_folder_is_not_touched(inputs: Callable[..., Inputs]) -> None:
    found = inputs()
    assert problems(found, fake_docker.container(folder="/srv/other/live")) == ["name"]
    assert problems(found, fake_docker.container(folder=str(found.live))) == []
    assert problems(found, fake_docker.container(folder="/srv/other/live", project="another")) == []


def test_a_full_disk_is_told_before_it_breaks_something(
    inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.preflight.shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=2**30)))
    assert problems(inputs()) == ["paths.state"]


def test_idle_gpus_and_a_runtime_are_all_that_cuda_needs(inputs: Callable[..., Inputs], here: Here) -> None:
    here(GPUS, ())
    assert problems(inputs("cuda")) == []
    assert problems(inputs("cuda"), runtimes=("runc",)) == ["device"]


def test_the_stacks_own_engine_may_keep_its_gpu_busy_and_nobody_else(inputs: Callable[..., Inputs], here: Here) -> None:
    here(GPUS, ())
    found = inputs("cuda")
    here(GPUS[1:], GPUS[:1])
    own = fake_docker.container("engine-toy-0", folder=str(found.live), gpus=(GPUS[0].uuid,))
    assert problems(found, own) == []
    assert problems(found) == ["models"]


def test_a_gpu_that_is_gone_is_named(inputs: Callable[..., Inputs], here: Here) -> None:
    here(GPUS, ())
    found = inputs("cuda")
    here(GPUS[1:], ())
    assert problems(found) == ["models"]


def test_everything_is_told_at_once(inputs: Callable[..., Inputs], here: Here, port: int) -> None:
    here(GPUS, ())
    found = inputs("cuda", ports=f"gateway: {{listen: 127.0.0.1, https_port: {port}}}\n")
    told = problems(found, fake_docker.container(folder="/srv/other"), runtimes=())
    assert {"name", "gateway.https_port", "device"} <= set(told)
