"""Where there are NVSwitches, Fabric Manager runs, is of the driver's version, and starts before what needs it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def switches(pci: list[tuple[str, str]]) -> int:
    count = len([identity for identity, kind in pci if kind.startswith("0680")])
    if not count:
        pytest.skip("no NVSwitch on the PCI bus")
    return count


def test_it_is_of_the_loaded_drivers_version(host: Any) -> None:
    version = host.check_output("nv-fabricmanager --version").split()[-1]
    assert version in host.file("/proc/driver/nvidia/version").content_string.split()


def test_it_runs_now_and_at_every_boot(host: Any) -> None:
    service = host.service("nvidia-fabricmanager")
    assert service.is_running
    assert service.is_enabled


def test_systemd_starts_it_before_docker_and_dcgm(host: Any) -> None:
    before = host.check_output("systemctl show --property=Before --value nvidia-fabricmanager").split()
    assert {"docker.service", "nvidia-dcgm.service"} <= set(before)
    after = host.check_output("systemctl show --property=After --value nvidia-fabricmanager").split()
    assert "multi-user.target" not in after  # with Before=docker.service that would be a circle


def test_every_link_of_every_gpu_is_up(report: dict[str, Any]) -> None:
    assert {gpu["nvlinks"] for gpu in report["gpus"]} == {12}
