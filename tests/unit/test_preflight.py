"""What must hold on a host before anything is changed: every problem at once, each with the key to change."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.models.containers import Container

from stack import preflight
from stack.apply import Before
from stack.errors import InputError
from stack.gpu import state
from stack.hardware import Gpu
from stack.inputs import Inputs, add_arguments, gather
from stack.prepare import prepare
from unit import fake_docker, given
from unit.conftest import WriteStack

GPUS = given.gpus(2)
DRIVER = "580.95.05"
SPECIFICATION = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": gpu.uuid, "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{number}"}]}}
        for number, gpu in enumerate(GPUS)
    ],
}
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
    with ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(4)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        https, prometheus, alertmanager, grafana = (probe.getsockname()[1] for probe in probes)
    return (
        f"gateway: {{listen: 127.0.0.1, https_port: {https}}}\n"
        f"observability: {{prometheus_port: {prometheus}, alertmanager_port: {alertmanager},"
        f" grafana: {{port: {grafana}}}}}\n"
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Says which GPUs of this box are idle and busy."""

    def say(idle: tuple[Gpu, ...], busy: tuple[Gpu, ...]) -> None:
        for module in ("which_hosts", "preflight"):
            monkeypatch.setattr(f"stack.{module}.find_gpus", lambda: (idle, busy))

    return say


@pytest.fixture
def inputs(write_stack: WriteStack, tmp_path: Path, free_ports: str) -> Callable[[str, str], Inputs]:
    def make(device: str = "cpu", ports: str = "", model: str = "") -> Inputs:
        path = write_stack(
            f"device: {device}\nmodels: [{{served_model_name: toy, source: {{toy: true}}{model}}}]\n"
            f"paths: {{state: {tmp_path}/state}}\n{ports or free_ports}"
        )
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return gather(parser.parse_args([str(path)]))

    return make


@pytest.fixture
def docker_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Docker says of itself on a host whose CDI specification (constructed) names both GPUs, in no odd mode."""
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/nvidia.json").write_text(json.dumps(SPECIFICATION))
    states = {gpu.uuid: state.GpuState(gpu.uuid, "Disabled", "Default", DRIVER) for gpu in GPUS}
    monkeypatch.setattr("stack.gpu.state.read_states", lambda: states)
    monkeypatch.setattr("stack.gpu.state.PROC", tmp_path / "no-proc")
    return {"ServerVersion": "28.5.1", "CDISpecDirs": [str(tmp_path / "cdi")]}


def problems(found: Inputs, *running: Container, info: dict[str, Any] | None = None) -> list[str]:
    """Key paths of what is wrong; none when all is well."""
    try:
        preflight.check(found, found.plans()[0], fake_docker.engine(*running, info=info))
    except InputError as error:
        return given.wheres(error)
    return []


def test_a_host_with_free_ports_and_disk_is_fine(inputs: Callable[..., Inputs]) -> None:
    assert problems(inputs()) == []


def test_an_engine_gets_no_more_cores_than_docker_has(inputs: Callable[..., Inputs]) -> None:
    assert problems(inputs(model=", cpu_limit: 2"), info={"NCPU": 2}) == []
    assert problems(inputs(model=", cpu_limit: 2.5"), info={"NCPU": 2}) == ["models[0].cpu_limit"]


def test_cores_are_those_of_the_hosts_own_engines(inputs: Callable[..., Inputs]) -> None:
    found = inputs(model=", cpu_limit: 4")
    gateway = replace(found.plans()[0], engines=())
    preflight.check(found, gateway, fake_docker.engine(info={"NCPU": 2}))


def test_a_host_of_a_fleet_is_not_brought_up_as_if_it_were_alone(inputs: Callable[..., Inputs]) -> None:
    found = inputs(ports="\n")
    hosts = (given.host("front", 1, roles=["gateway", "observability"]), given.host("gpu", 2, roles=["engines"]))
    for host in hosts:
        one = replace(found, hosts=hosts, only=host.name)
        with pytest.raises(InputError, match=rf"host '{host.name}' is one of a fleet"):
            prepare(one, argparse.Namespace(shipped=None), Before({}, {}, proven=False), fake_docker.engine())


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


def test_idle_gpus_and_cdi_are_all_that_cuda_needs(
    inputs: Callable[..., Inputs], here: Here, docker_info: dict[str, Any]
) -> None:
    here(GPUS, ())
    assert problems(inputs("cuda"), info=docker_info) == []
    assert problems(inputs("cuda"), info={"ServerVersion": "20.10.24"}) == ["device"]


def test_the_stacks_own_engine_may_keep_its_gpu_busy_and_nobody_else(
    inputs: Callable[..., Inputs], here: Here, docker_info: dict[str, Any]
) -> None:
    here(GPUS, ())
    found = inputs("cuda")
    here(GPUS[1:], GPUS[:1])
    own = fake_docker.container("engine-toy-0", folder=str(found.live), gpus=(GPUS[0].uuid,))
    assert problems(found, own, info=docker_info) == []
    assert problems(found, info=docker_info) == ["models"]


def test_a_gpu_that_is_gone_is_named_once(
    inputs: Callable[..., Inputs], here: Here, docker_info: dict[str, Any]
) -> None:
    here(GPUS, ())
    found = inputs("cuda")
    here(GPUS[1:], ())
    assert problems(found, info=docker_info) == ["models"]


@pytest.mark.parametrize(
    ("odd", "wheres"),
    [
        ({"mig": "Enabled"}, ["models"]),
        ({"compute_mode": "Exclusive_Process"}, ["models"]),
        ({"driver": "570.124.06"}, ["device"]),
        ({"mig": "Enabled", "driver": "470.82.01"}, ["models", "device"]),
    ],
)
def test_a_gpu_in_an_odd_mode_or_with_an_old_driver_is_refused_before_anything_is_changed(
    inputs: Callable[..., Inputs], here: Here, docker_info: dict[str, Any], odd: dict[str, str], wheres: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here(GPUS, ())
    usual = state.GpuState(GPUS[0].uuid, "Disabled", "Default", DRIVER)
    # the second GPU, which this stack does not take, is nobody's problem
    unused = state.GpuState(GPUS[1].uuid, "Enabled", "Prohibited", DRIVER)
    states = {GPUS[0].uuid: replace(usual, **odd), GPUS[1].uuid: unused}
    monkeypatch.setattr("stack.gpu.state.read_states", lambda: states)
    assert problems(inputs("cuda"), info=docker_info) == wheres


@pytest.mark.parametrize(
    ("environment", "refused"),
    [(("CUDA_VERSION=13.0.2", "PATH=/usr/bin"), True), (("CUDA_VERSION=12.9.1",), False), (("PATH=/usr/bin",), False)],
)
def test_an_image_that_says_another_cuda_than_the_driver_runs_is_refused_before_the_start(
    inputs: Callable[..., Inputs], here: Here, docker_info: dict[str, Any], environment: tuple[str, ...], refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here(GPUS, ())
    found = inputs("cuda")
    old = state.GpuState(GPUS[0].uuid, "Disabled", "Default", "570.124.06")
    monkeypatch.setattr("stack.gpu.state.read_states", lambda: {old.uuid: old})
    engine = fake_docker.engine(info=docker_info, image_env=environment)
    with pytest.raises(InputError, match=r"570\.124\.06") if refused else nullcontext():
        preflight.check_image(found, found.plans()[0], engine)


def test_everything_is_told_at_once(
    inputs: Callable[..., Inputs], here: Here, docker_info: dict[str, Any], port: int
) -> None:
    assert docker_info
    here(GPUS, ())
    found = inputs("cuda", ports=f"gateway: {{listen: 127.0.0.1, https_port: {port}}}\n")
    told = problems(found, fake_docker.container(folder="/srv/other"), info={})
    assert {"name", "gateway.https_port", "device"} <= set(told)
