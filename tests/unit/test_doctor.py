"""make doctor: it sees what is wrong, says what to do, and leaves no trace."""

from __future__ import annotations

import argparse
import datetime
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from stack import certificates, cordons, drains
from stack.config.gateway import Gateway
from stack.config.load import load_config
from stack.day2 import doctor, doctor_docker, doctor_gpu, doctor_host, doctor_running, doctor_stack
from stack.day2.doctor import Box, Check, Finding
from stack.hardware import Host
from stack.inputs import add_arguments
from stack.locks import only_one
from stacks import EIGHT_GPUS
from unit import given
from unit.conftest import WriteStack

LOADED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\n"
MakeBox = Callable[..., Box]


@pytest.fixture
def make_box(write_stack: WriteStack, tmp_path: Path) -> MakeBox:
    """A box with a plan, and an engine of Docker's when one is given."""

    def make(device: str = "cpu", client: object = None, more: str = "") -> Box:
        path = write_stack(
            f"device: {device}\nmodels: [{{served_model_name: toy, source: {{toy: true}}}}]\n"
            f"paths: {{state: {tmp_path}/state}}\n{more}"
        )
        config = load_config(path)
        plan = given.plan(config, EIGHT_GPUS if device == "cuda" else Host())
        return Box(config, None, plan, cast("docker.DockerClient | None", client), ())

    return make


def statuses(check: Check, box: Box) -> dict[str, str]:
    return {one.what: one.status for one in check(box)}


def engine(version: str, **info: Any) -> object:
    told = {"ServerVersion": version, "Driver": "overlay2", "CgroupVersion": "2", "CgroupDriver": "systemd", **info}
    return SimpleNamespace(info=lambda: told)


def test_without_docker_and_without_a_gpu_it_says_all_of_it_and_touches_nothing(
    write_stack: WriteStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setattr("stack.which_hosts.find_gpus", lambda: ((), ()))
    monkeypatch.setattr("stack.day2.doctor_stack.registry_answers", lambda _: False)
    state = f"paths: {{state: {tmp_path}/state}}\n"
    path = write_stack(f"device: cuda\nmodels: [{{served_model_name: toy, source: {{toy: true}}}}]\n{state}")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parts = (doctor_host, doctor_docker, doctor_gpu, doctor_stack, doctor_running)
    checks = [check for part in parts for check in part.CHECKS]
    found = list(doctor.run(doctor.look(parser.parse_args([str(path)])), checks))
    bad = {one.what: one.todo for one in found if one.status == "problem"}
    assert "systemctl start docker" in bad["Docker engine"]
    assert {"plan", "Docker engine"} <= bad.keys()
    assert [one for one in found if "could not be looked at" in one.detail] == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["stack.yaml"]


def test_a_check_that_fails_is_a_line_and_the_others_go_on(make_box: MakeBox) -> None:
    def broken(_: Box) -> Iterator[Finding]:
        raise OSError("no such device")
        yield

    box = replace(make_box(), trouble=(Finding("problem", "plan", "x"),))
    found = list(doctor.run(box, [broken, doctor_host.python]))
    assert [(one.status, one.what) for one in found] == [("problem", "plan"), ("warning", "broken"), ("ok", "Python")]
    assert "no such device" in found[1].detail


@pytest.mark.parametrize(
    ("about", "status"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, "ok"),
        ({"ID": "debian", "VERSION_ID": "11"}, "warning"),
        ({"ID": "debian"}, "ok"),  # testing
        ({"ID": "ubuntu", "VERSION_ID": "22.04"}, "ok"),
        ({"ID": "ubuntu", "VERSION_ID": "20.04"}, "warning"),
        ({"ID": "rocky", "VERSION_ID": "9.4"}, "warning"),
    ],
)
def test_systems(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, about: dict[str, str], status: str) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: about)
    assert statuses(doctor_host.system, make_box())["system"] == status


def test_memory_is_compared_with_what_the_engines_take(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    for gib, status in ((7, "problem"), (9, "ok")):  # 4 GiB of KV cache, 3 for the engine, 1 for the rest
        monkeypatch.setattr("os.sysconf", lambda name, gib=gib: gib * 2**18 if name == "SC_PHYS_PAGES" else 4096)
        assert statuses(doctor_host.memory, make_box()) == {"memory": status}


def test_a_disk_that_is_nearly_full_or_out_of_inodes(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, inodes, status in ((2**33, 50, "warning"), (2**36, 50, "ok"), (2**36, 1, "warning")):
        usage = SimpleNamespace(disk_usage=lambda _, free=free: SimpleNamespace(free=free, total=2**40))
        monkeypatch.setattr(doctor_host, "shutil", usage)
        monkeypatch.setattr("os.statvfs", lambda _, left=inodes: SimpleNamespace(f_files=100, f_favail=left))
        assert statuses(doctor_host.disks, make_box()) == {"disk of state": status}


@pytest.mark.parametrize(
    ("version", "device", "status"),
    [
        ("20.10.24+dfsg1", "cpu", "ok"),
        ("19.03.1", "cpu", "problem"),
        ("27.5.1", "cuda", "problem"),
        ("28.0.0", "cuda", "ok"),
    ],
)
def test_docker_is_new_enough_and_hands_out_gpus_by_cdi(
    make_box: MakeBox, version: str, device: str, status: str
) -> None:
    assert statuses(doctor_docker.engine, make_box(device, engine(version))) == {"Docker engine": status}


@pytest.fixture
def gpu_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with a driver, six switches, a CDI specification; its programs are in bin/ (constructed)."""
    driver = tmp_path / "version"
    driver.write_text(LOADED)
    for number in range(6):
        (tmp_path / f"switches/0000:c{number}:00.0").mkdir(parents=True)
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/nvidia.yaml").write_text("hostPath: /usr/lib/libcuda.so.580.95.05\n")
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(doctor_gpu, "DRIVER", driver)
    monkeypatch.setattr(doctor_gpu, "SWITCHES", tmp_path / "switches")
    monkeypatch.setattr(doctor_gpu, "CDI_FOLDERS", (tmp_path / "cdi",))
    monkeypatch.setattr(doctor_gpu, "_runs", lambda _: True)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program(tmp_path, "nvidia-smi", "0, GPU-1, NVIDIA A100-SXM4-80GB, 580.95.05, Enabled")
    program(tmp_path, "nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.18.0")
    program(tmp_path, "nv-fabricmanager", "Fabric Manager version is : 580.95.05")
    return tmp_path


def program(host: Path, name: str, says: str, code: int = 0) -> None:
    path = host / "bin" / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)


def gpu_findings(box: Box) -> dict[str, tuple[str, str]]:
    return {one.what: (one.status, one.todo) for check in doctor_gpu.CHECKS for one in check(box)}


def test_a_good_gpu_host_is_good(gpu_host: Path, make_box: MakeBox) -> None:
    assert {status for status, _ in gpu_findings(make_box("cuda")).values()} == {"ok"}
    assert gpu_findings(make_box("cpu")).keys() == {"GPU driver"}


def test_libraries_of_another_version_than_the_kernels_driver(gpu_host: Path, make_box: MakeBox) -> None:
    program(gpu_host, "nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch", 18)
    assert gpu_findings(make_box("cuda"))["nvidia-smi"] == ("problem", "reboot: libraries and kernel module differ")


def test_fabric_manager_has_to_run_and_be_of_the_drivers_version(
    gpu_host: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(gpu_host, "nv-fabricmanager", "Fabric Manager version is : 580.82.07")
    status, todo = gpu_findings(make_box("cuda"))["Fabric Manager"]
    assert (status, "580.95.05" in todo) == ("problem", True)
    monkeypatch.setattr(doctor_gpu, "_runs", lambda _: False)
    status, todo = gpu_findings(make_box("cuda"))["Fabric Manager"]
    assert (status, "802" in todo) == ("problem", True)
    monkeypatch.setattr(doctor_gpu, "SWITCHES", gpu_host / "none")
    assert "Fabric Manager" not in gpu_findings(make_box("cuda"))


def test_a_cdi_specification_of_the_driver_before(gpu_host: Path, make_box: MakeBox) -> None:
    (gpu_host / "cdi/nvidia.yaml").write_text("hostPath: /usr/lib/libcuda.so.570.10.01\n")
    assert gpu_findings(make_box("cuda"))["CDI"][0] == "problem"
    (gpu_host / "cdi/nvidia.yaml").unlink()
    assert gpu_findings(make_box("cuda"))["CDI"][0] == "warning"


def test_no_driver_no_toolkit_and_no_persistence(gpu_host: Path, make_box: MakeBox) -> None:
    program(gpu_host, "nvidia-smi", "0, GPU-1, NVIDIA A100-SXM4-80GB, 580.95.05, Disabled")
    (gpu_host / "version").unlink()
    (gpu_host / "bin/nvidia-ctk").unlink()
    found = [(one.what, one.status) for check in doctor_gpu.CHECKS for one in check(make_box("cuda"))]
    assert {("GPU driver", "problem"), ("container toolkit", "problem"), ("persistence mode", "warning")} <= {*found}


def test_a_port_that_is_taken_is_seen_without_docker_too(make_box: MakeBox) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        box = make_box(more=f"gateway: {{listen: 127.0.0.1, https_port: {port}}}\n")
        box = replace(box, inputs=cast(Any, SimpleNamespace()))
        (found,) = doctor_stack.readiness(box)
        assert (found.status, str(port) in found.detail) == ("problem", True)


@pytest.mark.parametrize(("days", "status"), [(-1, "problem"), (10, "warning"), (60, "ok")])
def test_a_certificate_is_told_before_it_ends(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, days: int, status: str
) -> None:
    box = make_box()
    box.state.mkdir(parents=True)
    monkeypatch.setattr(certificates, "VALID_DAYS", days + 1)
    if days < 0:
        monkeypatch.setattr(certificates, "datetime", _yesterday())
    name, _ = certificates.ensure(box.state, Gateway(), Path("/"))
    certificates.client_trust_file(box.state).write_bytes(certificates.certificate_file(box.state, name).read_bytes())
    assert statuses(doctor_stack.certificate, box) == {"certificate": status}


def _yesterday() -> object:
    """The module datetime, three days ago."""

    class Then(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Then:
            return super().now(tz) - datetime.timedelta(days=3)

    return SimpleNamespace(datetime=Then, timedelta=datetime.timedelta, UTC=datetime.UTC)


def test_secrets_that_others_may_read(make_box: MakeBox, tmp_path: Path) -> None:
    token = tmp_path / "hub-token"
    token.write_text("x")
    token.chmod(0o644)
    box = make_box(more=f"hub: {{token_file: {token}}}\n")
    key = box.state / "secrets/api-keys/default"
    key.parent.mkdir(parents=True)
    key.write_text("x")
    key.chmod(0o400)
    (found,) = doctor_running.secrets(box)
    assert (found.status, found.todo) == ("problem", f"`chmod 0400 {token}`")
    token.chmod(0o600)
    assert statuses(doctor_running.secrets, box) == {"secrets": "ok"}


def test_a_lock_is_seen_without_being_taken(make_box: MakeBox) -> None:
    box = make_box()
    with only_one(box.state):
        (found,) = doctor_running.locks(box)
    assert f"process {os.getpid()}" in found.detail
    assert list(doctor_running.locks(box)) == []


def test_what_a_person_took_out_is_not_forgotten(make_box: MakeBox) -> None:
    box = make_box()
    assert list(doctor_running.put_aside(box)) == []
    box.state.mkdir(parents=True)
    drains.save(box.state, ["engine-toy-0"])
    cordons.save(box.state, ["GPU-1"])
    assert [one.todo for one in doctor_running.put_aside(box)] == [
        "`make undrain REPLICA=engine-toy-0`", "`make uncordon GPU=GPU-1`"
    ]  # fmt: skip


def test_a_stack_that_was_never_applied_is_no_problem(make_box: MakeBox) -> None:
    assert statuses(doctor_running.running, make_box()) == {"stack": "ok"}


def test_evidence_of_a_day_is_told(make_box: MakeBox) -> None:
    box = make_box()
    new, old = (box.state / f"evidence/engine-toy-0/{name}" for name in ("new", "old"))
    for folder in (new, old):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    (found,) = doctor_running.evidence(box)
    assert str(new) in found.detail
