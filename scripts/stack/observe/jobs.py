"""How Prometheus scrapes each kind of target."""

from __future__ import annotations

from dataclasses import dataclass

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
