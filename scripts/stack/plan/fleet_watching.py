"""What the one Prometheus of a fleet scrapes and has probed: engines and parts of all hosts, by private address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from stack.config.schema import StackConfig
from stack.hardware import Host
from stack.observe import jobs
from stack.plan.fleet_parts import ALL_ADDRESSES, Members, services_of
from stack.plan.fleet_ports import PART_PORTS
from stack.plan.types import Engine, Pool, Target
from stack.plan.watching import gateway_probes, targets_at

# job -> services that it scrapes on each host that runs them
SCRAPED = {
    "cadvisor": ("cadvisor",),
    "dcgm": ("dcgm-exporter",),
    "haproxy": ("haproxy", "haproxy-standby"),
    "nginx": ("nginx",),
    "node": ("node-exporter",),
}


def fleet_targets(
    config: StackConfig, members: Members, pools: Sequence[Pool], engines: Mapping[str, Mapping[str, Engine]]
) -> tuple[Target, ...]:
    """Every target. engines: of each host."""
    of_model = {pool.served_model_name: pool for pool in pools}
    targets: list[Target] = []
    for name, own in engines.items():
        for engine in own.values():
            if engine.name in members.servers and not members.is_cordoned(engine.name):
                server = members.servers[engine.name]
                where = f"{server.address}:{server.port}"
                targets += targets_at(where, engine, of_model[engine.served_model_name], name)
    for host in members.hosts:
        targets += _of_parts(config, host, members.images)
        if host.has("gateway"):
            listen = config.gateway.listen
            address = host.address if listen == ALL_ADDRESSES else listen
            # its own by its name, as on a host that is alone
            where = "nginx:8443" if host.has("observability") else f"{address}:{config.gateway.https_port}"
            targets += gateway_probes(where, pools, host.name)
    return tuple(targets)


def _of_parts(config: StackConfig, host: Host, images: Set[str]) -> Iterator[Target]:
    here = {"host": host.name}
    services = services_of(config, host, images)
    for job, parts in SCRAPED.items():
        for part in parts:
            if part in services:
                port, inside = PART_PORTS[part]
                at = f"{part}:{inside}" if host.has("observability") else f"{host.address}:{port}"
                yield Target(job, at, here)
    if host.has("observability"):
        yield Target("alertmanager", "alertmanager:9093", here)
        yield Target("blackbox", jobs.BLACKBOX, here)
        yield Target("prometheus", "localhost:9090", here)
        if "grafana" in services:
            yield Target("grafana", "grafana:3000", here)
