"""Replicas that span hosts: which parts they have, and what each needs to know of the others. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from stack.config.schema import StackConfig
from stack.errors import Problem
from stack.hardware import Host
from stack.plan.engines import leader_of
from stack.plan.fleet_ports import MASTER_PORT_OFFSET
from stack.plan.fleet_types import Part
from stack.plan.places import EnginePlace


def spans_of(places: Mapping[str, EnginePlace]) -> dict[str, tuple[str, ...]]:
    """Replica -> names of its parts, the leading one first; of those that have several."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in places:
        found[leader_of(name)].append(name)
    return {leader: tuple(parts) for leader, parts in found.items() if len(parts) > 1}


def parts_of(hosts: Sequence[Host], places: Mapping[str, EnginePlace]) -> dict[str, Part]:
    """Every part of every replica that spans hosts, by name. hosts: of the fleet, each with address and interface."""
    by_name = {host.name: host for host in hosts}
    found = {}
    for leader, names in spans_of(places).items():
        on = {name: by_name[places[name].host] for name in names}
        port = places[leader].port
        for rank, name in enumerate(names):
            host = on[name]
            assert host.address
            assert host.interface
            found[name] = Part(
                rank=rank,
                address=host.address,
                interface=host.interface,
                leader=str(on[leader].address),
                port=port,
                master_port=port + MASTER_PORT_OFFSET,
                peers=tuple(str(other.address) for other in on.values() if other is not host),
            )
    return found


def span_problems(config: StackConfig, hosts: Sequence[Host]) -> Iterator[Problem]:
    """What a model over several hosts needs and these do not say."""
    serving = [host for host in hosts if host.has("engines")]
    for index, model in enumerate(config.models):
        if model.nnodes == 1:
            continue
        where = f"models[{index}].nnodes"
        if len(serving) < model.nnodes:
            what = f"{model.nnodes} hosts with the role engines are needed for a replica, and the fleet has"
            yield Problem(where, f"{what} {len(serving)}")
        for host in serving:
            if host.interface is None:
                what = f"host {host.name!r} needs `interface` in the hosts file: the one that has {host.address}, which"
                yield Problem(where, f"{what} NCCL and Gloo are told to use")
