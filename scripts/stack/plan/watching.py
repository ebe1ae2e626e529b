"""What Prometheus scrapes and has probed, and what its rules and Alertmanager are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any
from urllib.parse import urlsplit

from stack.config.observability import LogShipping
from stack.config.schema import StackConfig
from stack.hardware import Host
from stack.observe import jobs
from stack.plan import vllm_args
from stack.plan.types import Engine, Pool, Target

ENGINE_JOBS = ("vllm", "probe_replica")
PROBED_PATHS = {"generate": "/v1/completions", "embed": "/v1/embeddings"}


def engine_targets(engine: Engine, pools: Sequence[Pool], host: str) -> tuple[Target, Target]:
    """What Prometheus scrapes of an engine, and what it has asked of it from outside."""
    pool = next(pool for pool in pools if engine.name in pool.engines)
    return targets_at(f"{engine.name}:{vllm_args.PORT}", engine, pool, host)


def targets_at(where: str, engine: Engine, pool: Pool, host: str) -> tuple[Target, Target]:
    """The same of an engine that is reached at this address and port."""
    labels = {
        "host": host, "model": engine.served_model_name, "replica": str(engine.replica), "server": engine.name,
    }  # fmt: skip
    probed = {**labels, "__param_module": f"replica_{pool.name}"}
    return Target("vllm", where, labels), Target("probe_replica", f"http://{where}{PROBED_PATHS[pool.task]}", probed)


def gateway_probes(gateway: str, pools: Sequence[Pool], host: str) -> list[Target]:
    """A completion of each model through a gateway at this address and port."""
    targets = []
    for pool in pools:
        labels = {"host": host, "model": pool.served_model_name, "__param_module": f"gateway_{pool.name}"}
        # one target a model: Prometheus tells them apart by their address, which the gateway reads without its query
        where = f"https://{gateway}{PROBED_PATHS[pool.task]}?probe={pool.name}"
        targets.append(Target("probe_gateway", where, labels))
    return targets


def scrape_targets(
    config: StackConfig, engines: Sequence[Engine], pools: Sequence[Pool], host: Host, images: Set[str]
) -> tuple[Target, ...]:
    """Everything that Prometheus of this host scrapes or has probed. images: roles that the host runs."""
    here = {"host": host.name}
    targets = [target for engine in engines for target in engine_targets(engine, pools, host.name)]
    targets += gateway_probes("nginx:8443", pools, host.name)
    parts: dict[str, tuple[str, ...]] = {
        "alertmanager": ("alertmanager:9093",),
        "blackbox": (jobs.BLACKBOX,),
        "haproxy": ("haproxy:8405", "haproxy-standby:8405"),
        "nginx": ("nginx:8406",),
        "node": ("node-exporter:9100",),
        "prometheus": ("localhost:9090",),
    }
    if "grafana" in images:
        parts["grafana"] = ("grafana:3000",)
    if config.device == "cuda":
        parts |= {"cadvisor": ("cadvisor:8080",), "dcgm": ("dcgm-exporter:9400",)}
    targets += [Target(job, address, here) for job, addresses in parts.items() for address in addresses]
    return tuple(targets)


def watch_part(config: StackConfig, rules: Mapping[str, str]) -> dict[str, Any]:
    """Plan.watch: what is promised, who is told, and the user's own rule files."""
    watch = config.observability
    return {
        "slo": watch.slo.model_dump(),
        "receivers": tuple(receiver.model_dump() for receiver in watch.receivers),
        "rules": dict(rules),
        "runbooks": watch.runbooks,
        **({"log_shipping": _collector(watch.log_shipping)} if watch.log_shipping else {}),
    }


def _collector(shipping: LogShipping) -> dict[str, Any]:
    url = urlsplit(shipping.url)
    tls = url.scheme == "https"
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return {
        "host": url.hostname,
        "port": url.port or (443 if tls else 80),
        "path": path,
        "tls": "on" if tls else "off",
        "folder": shipping.containers,
    }
