"""How Prometheus scrapes each kind of target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

BLACKBOX = "blackbox-exporter:9115"


@dataclass(frozen=True)
class Job:
    """interval, timeout: seconds. samples: more in one scrape are refused. probed: asked by the blackbox exporter."""

    interval: int = 15
    timeout: int = 10
    samples: int = 5000
    probed: bool = False


# A completion of one token each minute, from outside: what waits longer than 30 s is as good as lost.
_PROBE = Job(interval=60, timeout=30, samples=200, probed=True)
# Limits are three times what was measured, or what a host with 8 GPUs adds up to: docs/observability.md.
JOBS = {
    "alertmanager": Job(samples=2000),
    "blackbox": Job(samples=1000),
    "cadvisor": Job(interval=30, samples=20_000),
    "dcgm": Job(interval=30, samples=3000),
    "grafana": Job(samples=10_000),  # not measured: its image could not be had
    "haproxy": Job(samples=30_000),
    "nginx": Job(samples=20_000),
    "node": Job(samples=20_000),
    "probe_gateway": _PROBE,
    "probe_replica": _PROBE,
    "prometheus": Job(samples=5000),
    "vllm": Job(samples=2000),
}

# Series of one engine in one HAProxy (3.0.11, tests/expositions).
HAPROXY_SERIES = 75
# What one series costs Prometheus, and as much again when it replays its log (compose/observability.yaml).
SERIES_BYTES, REPLAY = 8000, 2
PROMETHEUS_MIB = 4096


def jobs_for(names: Iterable[str], servers: int) -> dict[str, Job]:
    """Jobs by name, for a HAProxy with so many engines."""
    found = {name: JOBS[name] for name in names}
    if "haproxy" in found:
        samples = max(found["haproxy"].samples, 3 * HAPROXY_SERIES * servers)
        found["haproxy"] = replace(found["haproxy"], samples=samples)
    return found


def memory_mib(targets: Mapping[str, int], servers: int) -> int:
    """MiB that Prometheus may take for so many targets of each job: a third of each limit is what a full one has."""
    series = sum(job.samples // 3 * targets[name] for name, job in jobs_for(targets, servers).items())
    return max(PROMETHEUS_MIB, series * SERIES_BYTES * REPLAY // 2**20)
