"""What each host of a fleet runs beside its engines, and which of the stack's settings concern it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stack.config.schema import StackConfig
from stack.errors import Problem
from stack.hardware import Host
from stack.observe.jobs import memory_mib
from stack.plan.engines import leader_of
from stack.plan.fleet_ports import GATEWAY, RESERVED, openings
from stack.plan.fleet_types import Fleet, Floating, Part, Server
from stack.plan.gateway import PROBE, gateway_part
from stack.plan.places import EnginePlace
from stack.plan.ports import published_ports
from stack.plan.types import Published
from stack.plan.watching import watch_part

OBSERVABILITY = ("prometheus", "alertmanager", "blackbox-exporter")
GPU_EXPORTERS = ("dcgm-exporter", "cadvisor")
ALL_ADDRESSES = "0.0.0.0"


@dataclass(frozen=True)
class Members:
    """The hosts of a fleet and all of its engines. cordoned: uuids. images: roles that the stack has.

    servers: the engines that answer requests; places: those, and parts that follow one; parts: of replicas over hosts.
    """

    hosts: tuple[Host, ...]
    servers: Mapping[str, Server]
    places: Mapping[str, EnginePlace]
    parts: Mapping[str, Part]
    cordoned: frozenset[str]
    images: frozenset[str]

    def is_cordoned(self, engine: str) -> bool:
        """Whether an engine is not run, as one of its GPUs is not to be used, on whichever of its hosts."""
        return engine in self._not_run

    @cached_property
    def _not_run(self) -> frozenset[str]:
        out = {leader_of(name) for name, place in self.places.items() if self.cordoned & set(place.gpus)}
        return frozenset(name for name in self.places if leader_of(name) in out)


def fleet_problems(config: StackConfig, hosts: Sequence[Host]) -> list[Problem]:
    """What the stack file and the hosts cannot say together."""
    gateway = config.gateway
    gateways = [host for host in hosts if host.has("gateway")]
    problems = []
    for host in hosts:
        if config.device == "cuda" and host.has("engines") and not host.gpus:
            what = f"host {host.name!r} has the role engines and no GPU; name its GPUs, or give it other roles"
            problems.append(Problem("models", what))
    if gateway.https_port in RESERVED:
        what = f"{gateway.https_port}: a fleet needs {RESERVED.start} to {RESERVED.stop - 1} between its hosts"
        problems.append(Problem("gateway.https_port", what))
    if gateway.listen != ALL_ADDRESSES and len(gateways) > 1:
        what = f"{gateway.listen} is on one of {len(gateways)} gateway hosts at most; use {ALL_ADDRESSES}"
        problems.append(Problem("gateway.listen", what))
    if gateway.floating_address:
        where = "gateway.floating_address"
        if len(gateways) < 2:
            problems.append(Problem(where, "it moves between hosts: two with the role gateway are needed"))
        for host in gateways:
            if host.interface is None:
                what = f"host {host.name!r} needs `interface` in the hosts file: where it answers to the address"
                problems.append(Problem(where, what))
        for host in hosts:
            if host.address == gateway.floating_address:
                problems.append(
                    Problem(where, f"{host.address} is the own address of host {host.name!r}; choose a free one")
                )
    return problems


def services_of(config: StackConfig, host: Host, images: Set[str]) -> tuple[str, ...]:
    """Everything that a host runs beside its engines."""
    return (
        *(GATEWAY if host.has("gateway") else ()),
        *(OBSERVABILITY if host.has("observability") else ()),
        *(("grafana",) if host.has("observability") and "grafana" in images else ()),
        "node-exporter",
        *(("fluent-bit",) if "fluent_bit" in images else ()),
        *(GPU_EXPORTERS if host.has("engines") and config.device == "cuda" else ()),
    )


def published_of(config: StackConfig, host: Host, images: Set[str]) -> tuple[Published, ...]:
    """The ports for clients and operators; what is between hosts is in the fleet's own part."""
    services = services_of(config, host, images)
    return tuple(port for port in published_ports(config, images) if port.service in services)


def gateway_of(config: StackConfig, host: Host) -> dict[str, Any]:
    """Plan.gateway: clients where they come, the probe where it is sent from; a new client changes no other host."""
    part = gateway_part(config)
    if host.has("gateway"):
        return part
    clients = {PROBE: part["clients"][PROBE]} if host.has("observability") else {}
    return {**part, "api_keys": tuple(clients), "clients": clients}


def watch_of(config: StackConfig, host: Host, rules: Mapping[str, str]) -> dict[str, Any]:
    """Plan.watch: who is told, and rules, where Prometheus is."""
    part = watch_part(config, rules)
    return part if host.has("observability") else {**part, "receivers": (), "rules": {}}


def fleet_part(config: StackConfig, host: Host, members: Members) -> Fleet:
    """Plan.fleet of one host."""
    assert host.address
    services = services_of(config, host, members.images)
    speaks = host.has("gateway") or host.has("observability")
    own = {name: place.port for name, place in members.places.items() if place.host == host.name}
    parts = {name: members.parts[name] for name in own if name in members.parts}
    place = members.hosts.index(host)
    return Fleet(
        roles=tuple(sorted(role for role in ("engines", "gateway", "observability") if host.has(role))),
        address=host.address,
        services=services,
        compose_files=_compose_files(services),
        edge=_bridge("edge", config.name),
        private=_bridge("fleet", config.name),
        table=_table(config.name),
        openings=tuple(openings(host, services, own, parts, members.hosts, f"hosts[{place}].address")),
        servers=members.servers if speaks else {},
        not_run=tuple(name for name in members.servers if speaks and members.is_cordoned(name)),
        floating=_floating(config, host, members.hosts),
        prometheus_mib=_prometheus_mib(config, members) if host.has("observability") else 0,
        parts=parts,
    )


def _compose_files(services: Sequence[str]) -> tuple[str, ...]:
    return (
        "compose.yaml",
        *(("compose/edge.yaml",) if "nginx" in services else ()),
        "compose/observability.yaml",
        *(("compose/grafana.yaml",) if "grafana" in services else ()),
        *(("compose/gpu-exporters.yaml",) if "dcgm-exporter" in services else ()),
        *(("compose/log-shipping.yaml",) if "fluent-bit" in services else ()),
        "compose/fleet.yaml",
    )


def _bridge(kind: str, project: str) -> str:
    # the kernel takes 15 characters, and a stack's name may have 63
    return f"{kind}-{hashlib.sha256(project.encode()).hexdigest()[:8]}"


def _table(project: str) -> str:
    # two stacks of one host must not flush one another's rules
    return "vllm_onprem" if project == "vllm-onprem" else f"vllm_onprem_{project.replace('-', '_')}"


def _floating(config: StackConfig, host: Host, hosts: Sequence[Host]) -> Floating | None:
    address = config.gateway.floating_address
    if address is None or not host.has("gateway"):
        return None
    assert host.interface
    gateways = [other for other in hosts if other.has("gateway")]
    return Floating(
        address=address,
        interface=host.interface,
        router_id=int(address.rsplit(".", 1)[1]) or 1,
        priority=200 - gateways.index(host),
        peers=tuple(str(other.address) for other in gateways if other is not host),
    )


def _prometheus_mib(config: StackConfig, members: Members) -> int:
    cuda = config.device == "cuda"
    serving = sum(host.has("engines") for host in members.hosts)
    gateways = sum(host.has("gateway") for host in members.hosts)
    return memory_mib(
        {
            "vllm": len(members.servers),
            "node": len(members.hosts),
            "cadvisor": serving * cuda,
            "dcgm": serving * cuda,
            "haproxy": 2 * gateways,
            "nginx": gateways,
        },
        len(members.servers),
    )
