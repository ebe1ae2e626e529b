"""Ports: those that are published on the host, and those that containers listen on."""

from __future__ import annotations

from collections.abc import Set

from stack.config.schema import StackConfig
from stack.plan import vllm_args
from stack.plan.types import Plan, Published


def published_ports(config: StackConfig, images: Set[str]) -> tuple[Published, ...]:
    """Every port on the host, with the key of the stack file that sets it. images: roles that the host runs."""
    gateway, watch = config.gateway, config.observability
    always = (
        Published("nginx", gateway.listen, gateway.https_port, "gateway.https_port"),
        Published("prometheus", "127.0.0.1", watch.prometheus_port, "observability.prometheus_port"),
        Published("alertmanager", "127.0.0.1", watch.alertmanager_port, "observability.alertmanager_port"),
    )
    grafana = Published("grafana", "127.0.0.1", watch.grafana.port, "observability.grafana.port")
    return (*always, grafana) if "grafana" in images else always


def listens(plan: Plan) -> dict[str, frozenset[int]]:
    """service -> every TCP port on which its container may be spoken to, published or not."""
    haproxy = frozenset({8080, 8081, 8405})  # requests, requests again, metrics
    parts = {
        "nginx": frozenset({8443, 8406}),  # clients, metrics
        "haproxy": haproxy,
        "haproxy-standby": haproxy,
        "blackbox-exporter": frozenset({9115}),
        "prometheus": frozenset({9090}),
        "alertmanager": frozenset({9093}),
        "node-exporter": frozenset({9100}),
    }
    if "grafana" in plan.images:
        parts["grafana"] = frozenset({3000})
    if "fluent_bit" in plan.images:
        parts["fluent-bit"] = frozenset()
    if plan.device == "cuda":
        parts |= {"cadvisor": frozenset({8080}), "dcgm-exporter": frozenset({9400})}
    return parts | {engine.name: frozenset({vllm_args.PORT}) for engine in plan.engines}
