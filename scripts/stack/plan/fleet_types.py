"""What a plan says beside its own containers where its host is one of a fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Server:
    """One engine as other hosts reach it, and the GPUs that it has there."""

    host: str
    address: str
    port: int
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Opening:
    """A port of a container on its host's private address. clients: addresses of the hosts that it answers.

    key: of the hosts file, for messages.
    """

    service: str
    address: str
    port: int
    inside: int
    clients: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Floating:
    """The address that moves between gateway hosts. peers: private addresses of the others; first: highest priority."""

    address: str
    interface: str
    router_id: int
    priority: int
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Fleet:
    """This host among the others.

    services: what it runs beside its engines. edge, private: names of its bridges, for the firewall; table: the
    firewall's own. servers: engines of the whole fleet by name, on hosts that speak to them; not_run: those whose GPU
    is cordoned. prometheus_mib: memory that Prometheus may take here, 0 where there is none.
    """

    roles: tuple[str, ...]
    address: str
    services: tuple[str, ...]
    compose_files: tuple[str, ...]
    edge: str
    private: str
    table: str
    openings: tuple[Opening, ...]
    servers: Mapping[str, Server]
    not_run: tuple[str, ...]
    floating: Floating | None
    prometheus_mib: int


def fleet_from(document: Mapping[str, Any]) -> Fleet:
    """The Fleet that a plan.json holds."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    if plain["floating"]:
        plain["floating"] = Floating(**{**plain["floating"], "peers": tuple(plain["floating"]["peers"])})
    plain["openings"] = tuple(Opening(**{**one, "clients": tuple(one["clients"])}) for one in plain["openings"])
    plain["servers"] = {name: Server(**{**one, "gpus": tuple(one["gpus"])}) for name, one in plain["servers"].items()}
    return Fleet(**plain)
