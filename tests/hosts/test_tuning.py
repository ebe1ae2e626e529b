"""Kernel settings are in force, not only in files."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vm.swappiness", 1), ("kernel.numa_balancing", 0), ("vm.zone_reclaim_mode", 0), ("vm.max_map_count", 1048576)],
)
def test_a_kernel_parameter_is_in_force(host: Any, name: str, expected: int) -> None:
    assert host.sysctl(name) == expected


def test_huge_pages_go_to_who_asks(host: Any) -> None:
    assert "[madvise]" in host.file("/sys/kernel/mm/transparent_hugepage/enabled").content_string


def test_processors_clock_up_at_once(host: Any) -> None:
    governor = host.file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    assert not governor.exists or governor.content_string.strip() == "performance"


def test_something_keeps_the_time(host: Any) -> None:
    names = ("chrony", "chronyd", "systemd-timesyncd", "ntpsec", "ntp")
    states = host.run(f"systemctl is-active {' '.join(names)}").stdout.split()
    assert "active" in states
