"""Which files of the tree a host of a fleet needs, and what its templates say of the other hosts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from stack.plan import vllm_args
from stack.plan.fleet_types import Fleet
from stack.plan.types import Plan
from stack.yaml_input import parsed

# First match wins: what a file is for, as a service that has to be among the host's.
NEEDS = (
    ("nginx/", "nginx"),
    ("haproxy/", "haproxy"),
    ("compose/edge.yaml", "nginx"),
    ("prometheus/", "prometheus"),
    ("blackbox/", "blackbox-exporter"),
    ("compose/grafana.yaml", "grafana"),
    ("grafana/", "grafana"),
    ("compose/dcgm/", "dcgm-exporter"),
    ("compose/gpu-exporters.yaml", "dcgm-exporter"),
    ("compose/fluent-bit/", "fluent-bit"),
    ("compose/log-shipping.yaml", "fluent-bit"),
)
FLEET_ONLY = ("compose/fleet.yaml", "host/")
KEEPALIVED = "host/keepalived/"
# The networks that a service joins to be reached from other hosts (fleet), or to reach them (edge).
JOINS = {"haproxy": "edge", "haproxy-standby": "edge", "blackbox-exporter": "edge", "nginx": "", "prometheus": ""}
COMPOSE_FILES = ("compose.yaml", "compose/edge.yaml", "compose/observability.yaml")


def belongs(path: str, plan: Plan) -> bool:
    """Whether a file of the tree is for this host."""
    fleet = plan.fleet
    if fleet is None:
        return not path.startswith(FLEET_ONLY)
    if path.startswith(KEEPALIVED):
        return fleet.floating is not None
    if path.startswith("compose/engine/"):
        return "engines" in fleet.roles
    service = next((service for prefix, service in NEEDS if path.startswith(prefix)), None)
    return service is None or service in fleet.services


def static_file(path: str, content: bytes, plan: Plan) -> bytes:
    """A static file as this host has it: of a Compose file only the services that it runs."""
    if plan.fleet is None or path != "compose/observability.yaml" or "prometheus" in plan.fleet.services:
        return content
    return _only_services(content, plan.fleet.services)


def compose_files(plan: Plan) -> tuple[str, ...]:
    """What Compose reads, in this order."""
    if plan.fleet:
        return plan.fleet.compose_files
    return (
        *COMPOSE_FILES,
        *(("compose/grafana.yaml",) if "grafana" in plan.images else ()),
        *(("compose/gpu-exporters.yaml",) if plan.device == "cuda" else ()),
        *(("compose/log-shipping.yaml",) if "fluent_bit" in plan.images else ()),
    )


def servers(plan: Plan) -> dict[str, str]:
    """Engine -> address and port that HAProxy reaches it by."""
    if plan.fleet:
        return {name: f"{server.address}:{server.port}" for name, server in plan.fleet.servers.items()}
    return {name: f"{name}:{vllm_args.PORT}" for pool in plan.pools for name in pool.engines}


def context(plan: Plan) -> dict[str, Any]:
    """What templates say of the fleet; nothing without one."""
    fleet = plan.fleet
    if fleet is None:
        return {}
    ports = {opening.service: opening.port for opening in fleet.openings}
    return {"reached": _reached(plan, fleet), "firewall": _firewall(fleet), "gateway_ports": ports}


def _reached(plan: Plan, fleet: Fleet) -> list[dict[str, Any]]:
    not_run = {engine.name for engine in plan.cordoned}
    published = {
        opening.service: f"{opening.address}:{opening.port}:{opening.inside}"
        for opening in fleet.openings
        if opening.service not in not_run
    }
    names = sorted({*published, *fleet.services} - {"alertmanager"})
    found = []
    for name in names:
        network = JOINS.get(name, "fleet" if name in published else "")
        memory = fleet.prometheus_mib if name == "prometheus" else 0
        if network or memory or name in published:
            found.append({"name": name, "network": network, "port": published.get(name), "memory_mib": memory})
    return found


def _firewall(fleet: Fleet) -> dict[str, Any]:
    rules: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for opening in fleet.openings:
        if opening.clients:
            rules[opening.clients].append(opening.port)
    return {
        "ports": sorted(opening.port for opening in fleet.openings),
        "rules": [{"clients": clients, "ports": sorted(ports)} for clients, ports in sorted(rules.items())],
        # containers of this host that speak to engines come from its own bridge
        "local": bool({"gateway", "observability"} & set(fleet.roles)),
    }


@lru_cache(maxsize=64)
def _only_services(content: bytes, services: tuple[str, ...]) -> bytes:
    document: Mapping[str, Any] = parsed(content)
    kept = {name: service for name, service in document["services"].items() if name in services}
    volumes = {volume.split(":")[0] for service in kept.values() for volume in service.get("volumes", [])}
    named = {name: volume for name, volume in document.get("volumes", {}).items() if name in volumes}
    only = {"services": kept, **({"volumes": named} if named else {})}
    return yaml.safe_dump(only, sort_keys=False, width=1000).encode()
