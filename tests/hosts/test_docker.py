"""Docker answers, keeps what runs through its own upgrade, rotates logs, and can hand out GPUs."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture
def info(host: Any) -> dict[str, Any]:
    """What the engine says of itself: what is in force, not what a file says."""
    found: dict[str, Any] = json.loads(host.check_output("docker info --format '{{json .}}'"))
    return found


def test_it_runs_now_and_at_every_boot(host: Any) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_it_starts_after_what_its_containers_need(host: Any) -> None:
    after = host.check_output("systemctl show --property=After --value docker").split()
    assert {"nvidia-fabricmanager.service", "nvidia-persistenced.service", "nvidia-cdi-refresh.service"} <= set(after)


def test_containers_outlive_the_engine(info: dict[str, Any]) -> None:
    assert info["LiveRestoreEnabled"] is True


def test_logs_are_rotated(host: Any, info: dict[str, Any]) -> None:
    assert info["LoggingDriver"] == "json-file"
    options = json.loads(host.file("/etc/docker/daemon.json").content_string)["log-opts"]
    assert {"max-size", "max-file"} <= set(options)


def test_a_daemon_reload_cannot_take_gpus_away(info: dict[str, Any]) -> None:
    assert info["CgroupDriver"] == "cgroupfs"


def test_the_nvidia_runtime_is_known_and_is_not_the_default(info: dict[str, Any]) -> None:
    assert "nvidia" in info["Runtimes"]
    assert info["DefaultRuntime"] == "runc"


def test_every_gpu_can_be_asked_for_by_cdi(host: Any, pci: list[tuple[str, str]]) -> None:
    devices = host.check_output("nvidia-ctk cdi list").split()
    numbered = {name for name in devices if name.startswith("nvidia.com/gpu=") and name.rsplit("=")[-1].isdigit()}
    assert len(numbered) == len([identity for identity, kind in pci if kind.startswith("03")])


def test_the_four_packages_of_the_toolkit_are_of_one_version(host: Any, lock: dict[str, Any]) -> None:
    names = (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    )
    assert {host.package(name).version.split("-")[0] for name in names} == {lock["container_toolkit"]}
