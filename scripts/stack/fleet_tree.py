"""Which files of the tree a host of a fleet needs, and what its templates say of the other hosts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from stack.ownership import ENGINE_UID
from stack.plan import vllm_args
from stack.plan.fleet_ports import KERNELS_PORTS
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
    """What templates say of the fleet; next to nothing without one."""
    fleet = plan.fleet
    if fleet is None:
        return {"parts": {}}
    ports = {opening.service: opening.port for opening in fleet.openings}
    reached, firewall = _reached(plan, fleet), _firewall(plan, fleet)
    return {"reached": reached, "firewall": firewall, "gateway_ports": ports, "parts": fleet.parts}


def _reached(plan: Plan, fleet: Fleet) -> list[dict[str, Any]]:
    # parts of a replica over hosts publish nothing: they have the host's network
    not_published = {*(engine.name for engine in plan.cordoned), *fleet.parts}
    published = {
        opening.service: f"{opening.address}:{opening.port}:{opening.inside}"
        for opening in fleet.openings
        if opening.service not in not_published
    }
    names = sorted({*published, *fleet.services} - {"alertmanager"})
    found = []
    for name in names:
        network = JOINS.get(name, "fleet" if name in published else "")
        memory = fleet.prometheus_mib if name == "prometheus" else 0
        if network or memory or name in published:
            found.append({"name": name, "network": network, "port": published.get(name), "memory_mib": memory})
    return found


def _firewall(plan: Plan, fleet: Fleet) -> dict[str, Any]:
    rules: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for opening in fleet.openings:
        if opening.clients:
            rules[opening.clients].append(opening.port)
    return {
        "ports": sorted(opening.port for opening in fleet.openings),
        "rules": [{"clients": clients, "ports": sorted(ports)} for clients, ports in sorted(rules.items())],
        "public": plan.gateway["https_port"] if "gateway" in fleet.roles else None,
        # containers of this host that speak to engines come from its own bridge
        "local": bool({"gateway", "observability"} & set(fleet.roles)),
        **_of_parts(plan, fleet),
    }


def _of_parts(plan: Plan, fleet: Fleet) -> dict[str, Any]:
    """masters: ports on which leaders have their followers, with whom; peers: hosts of all other parts."""
    running = {engine.name for engine in plan.engines}
    parts = [part for name, part in fleet.parts.items() if name in running]
    return {
        "masters": [
            {"port": part.master_port, "peers": part.peers}
            for part in sorted(parts, key=lambda part: part.master_port)
            if part.rank == 0
        ],
        "peers": sorted({peer for part in parts for peer in part.peers}),
        "kernels_ports": "-".join(map(str, KERNELS_PORTS)),
        "engines_uid": ENGINE_UID,
    }


@lru_cache(maxsize=64)
def _only_services(content: bytes, services: tuple[str, ...]) -> bytes:
    document: Mapping[str, Any] = parsed(content)
    kept = {name: service for name, service in document["services"].items() if name in services}
    volumes = {volume.split(":")[0] for service in kept.values() for volume in service.get("volumes", [])}
    named = {name: volume for name, volume in document.get("volumes", {}).items() if name in volumes}
    only = {"services": kept, **({"volumes": named} if named else {})}
    return yaml.safe_dump(only, sort_keys=False, width=1000).encode()
