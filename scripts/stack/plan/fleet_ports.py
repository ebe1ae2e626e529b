"""Ports that containers of a fleet have on their host's private address, and whom they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stack.hardware import Host
from stack.plan import vllm_args
from stack.plan.fleet_types import Opening, Part

# Below the ports that Linux gives to outgoing connections (32768 and above).
ENGINE_PORTS = range(18000, 19000)
# Where the followers of a replica that spans hosts find its leader: that one's own port and this.
MASTER_PORT_OFFSET = 1000
# Message queues of vLLM, NCCL and Gloo listen on ports of the kernel's choice: net.ipv4.ip_local_port_range.
KERNELS_PORTS = (32768, 60999)
# service -> (port on the host, port of the container)
PART_PORTS = {
    "cadvisor": (17080, 8080),
    "dcgm-exporter": (17400, 9400),
    "haproxy": (17405, 8405),
    "haproxy-standby": (17415, 8405),
    "nginx": (17406, 8406),
    "node-exporter": (17100, 9100),
}
# Asked from their own host too, by what moves the floating address.
GATEWAY = ("nginx", "haproxy", "haproxy-standby")
RESERVED = range(17000, ENGINE_PORTS.stop + MASTER_PORT_OFFSET)


def openings(
    host: Host,
    services: Sequence[str],
    engines: Mapping[str, int],
    spanning: Mapping[str, Part],
    hosts: Sequence[Host],
    key: str,
) -> Iterator[Opening]:
    """Of one host. engines: its own, with their ports; spanning: those of them that are parts of a replica over hosts.
    Engines answer gateways and Prometheus, parts that follow another nobody, the rest Prometheus.

    Prometheus reaches the parts of its own host by their names.
    """
    assert host.address
    others = [other for other in hosts if other is not host]
    watching = tuple(str(other.address) for other in others if other.has("observability"))
    asking = tuple(str(other.address) for other in others if other.has("observability") or other.has("gateway"))
    for service in services:
        if service in PART_PORTS and (watching or service in GATEWAY):
            port, inside = PART_PORTS[service]
            yield Opening(service, host.address, port, inside, watching, key)
    for engine, port in engines.items():
        part = spanning.get(engine)
        clients = () if part and part.rank else asking
        yield Opening(engine, host.address, port, port if part else vllm_args.PORT, clients, key)
