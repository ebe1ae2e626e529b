"""DCGM runs and watches, and dcgm-exporter has the counters that its default leaves off."""

from __future__ import annotations

from typing import Any

import pytest


def test_it_runs_and_watches_health(host: Any) -> None:
    assert host.service("nvidia-dcgm").is_running
    assert host.service("nvidia-dcgm").is_enabled
    watches = host.check_output("dcgmi health -g 0 -f")
    assert "On" in watches.split()


def test_it_is_of_the_locked_version(host: Any, lock: dict[str, Any]) -> None:
    assert lock["dcgm"] in host.check_output("dcgmi --version")


@pytest.mark.parametrize(
    "field",
    [
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "DCGM_FI_DEV_ROW_REMAP_PENDING",
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_THERMAL_VIOLATION",
        "DCGM_EXP_XID_ERRORS_COUNT",
        "DCGM_EXP_CLOCK_EVENTS_COUNT",
    ],
)
def test_a_counter_that_is_off_by_default_is_on(host: Any, field: str) -> None:
    lines = host.file("/etc/dcgm-exporter/vllm-onprem-counters.csv").content_string.splitlines()
    assert field in {line.split(",")[0] for line in lines}
