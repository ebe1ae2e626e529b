"""What it costs to watch the running stack: series, memory, disk, and the engines' time for their own pages."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from dashboards.expositions import CONSTRUCTED
from integration.conftest import PROJECT, Stack
from stack.docker_host import containers
from stack.observe.jobs import JOBS
from watching import Watched

ENGINE, IDLE_SECONDS, SCRAPES = "engine-toy-0", 15, 100
# Prometheus' documentation, Storage: 1 to 2 bytes a sample.
BYTES_A_SAMPLE = 1.5
# What docs/observability.md promises: series, and MB of each container.
CPU_STACK, EIGHT_GPUS = 5000, 12_000
MEGABYTES = {"prometheus": 300, "alertmanager": 100, "blackbox-exporter": 100, "node-exporter": 100}
# Not measured, its image could not be had: 20 containers of 100 series each.
CADVISOR = 2000


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Watched:
    return Watched(PROJECT, stack.state, stack.client)


def processes(watched: Watched, service: str) -> list[Path]:
    """Those of a container. Docker's own statistics are empty where its cgroups are within others."""
    rows = containers(watched.client, PROJECT)[service].top()["Processes"]
    return [Path("/proc", row[1]) for row in rows]


def cpu(watched: Watched, service: str) -> float:
    """Seconds that the processes of a container have used, in user and in kernel mode."""
    rows = [(each / "stat").read_text().rpartition(")")[2].split() for each in processes(watched, service)]
    return sum(int(ticks) for row in rows for ticks in row[11:13]) / os.sysconf("SC_CLK_TCK")


def memory(watched: Watched, service: str) -> float:
    """MB that they hold."""
    pages = sum(int((each / "statm").read_text().split()[1]) for each in processes(watched, service))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_a_scrape_of_an_engine_takes_less_than_a_hundredth_of_a_core(watched: Watched) -> None:
    began, idle_from = time.monotonic(), cpu(watched, ENGINE)
    time.sleep(IDLE_SECONDS)
    middle, idle_to = time.monotonic(), cpu(watched, ENGINE)
    for _ in range(SCRAPES):
        watched.exposition(ENGINE, "engines", 8000)
    idle = (idle_to - idle_from) / (middle - began) * (time.monotonic() - middle)
    each = (cpu(watched, ENGINE) - idle_to - idle) / SCRAPES
    share = each / JOBS["vllm"].interval
    print(f"\na scrape of {ENGINE}: {each * 1000:.1f} ms of CPU, {share:.3%} of a core; n={SCRAPES}", end="")
    assert share < 0.01


def test_series_memory_and_disk_are_no_more_than_the_documentation_says(watched: Watched) -> None:
    found = watched.ask("sum by (job) (scrape_samples_post_metric_relabeling)")
    series = {item["metric"]["job"]: int(item["value"][1]) for item in found}
    assert series.keys() == {target.job for target in watched.plan.targets}
    print(f"\n{sum(series.values())} series: {dict(sorted(series.items()))}, {month(series):.2f} GB in 30 days", end="")
    for service, limit in MEGABYTES.items():
        held = memory(watched, service)
        print(f"\n{service}: {held:.0f} MB, {cpu(watched, service):.0f} s of CPU since it started", end="")
        assert held < limit
    assert sum(series.values()) < CPU_STACK
    big = of_eight_gpus(series, watched)
    print(f"\n8 GPUs, computed: {sum(big.values())} series: {big}, {month(big):.2f} GB in 30 days", end="")
    assert sum(big.values()) < EIGHT_GPUS


def month(series: Mapping[str, int]) -> float:
    """GB that Prometheus keeps of these in 30 days."""
    return sum(count / JOBS[job].interval for job, count in series.items()) * 30 * 86400 * BYTES_A_SAMPLE / 1e9


def of_eight_gpus(series: Mapping[str, int], watched: Watched) -> dict[str, int]:
    """Series by job of a host with 8 engines on 8 GPUs, from what this stack has of each part."""
    server = watched.exposition("haproxy", "inner", 8405).count(f'server="{ENGINE}"')
    dcgm = sum('gpu="0"' in line for line in CONSTRUCTED.read_text().splitlines())
    return {
        **series,
        "vllm": series["vllm"] // 2 * 8,
        "probe_replica": series["probe_replica"] // 2 * 8,
        "haproxy": series["haproxy"] + 2 * 6 * server,
        "dcgm": 8 * dcgm,
        "cadvisor": CADVISOR,
    }
