"""What a plan says beside its own containers where its host is one of a fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Server:
    """One engine as other hosts reach it, and the GPUs that it has there. followers: host -> GPUs that it has on it."""

    host: str
    address: str
    port: int
    gpus: tuple[str, ...]
    followers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
class Part:
    """A container of a replica that spans hosts, on this one. It has the host's network: docs/fleet.md says why.

    rank: 0 leads and is the one that answers requests, the others follow it. address, interface: of this host. leader:
    address of the leading host; port, master_port: those that the leader has there, for requests and for its followers.
    peers: addresses of the other parts' hosts.
    """

    rank: int
    address: str
    interface: str
    leader: str
    port: int
    master_port: int
    peers: tuple[str, ...]


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
    is cordoned. prometheus_mib: memory that Prometheus may take here, 0 where there is none. parts: by name, those of
    this host's engines that span hosts.
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
    parts: Mapping[str, Part] = field(default_factory=dict)


def fleet_from(document: Mapping[str, Any]) -> Fleet:
    """The Fleet that a plan.json holds."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    if plain["floating"]:
        plain["floating"] = Floating(**{**plain["floating"], "peers": tuple(plain["floating"]["peers"])})
    plain["openings"] = tuple(Opening(**{**one, "clients": tuple(one["clients"])}) for one in plain["openings"])
    plain["servers"] = {name: _server(one) for name, one in plain["servers"].items()}
    parts = plain.get("parts", {})  # a plan of before there were parts has none
    plain["parts"] = {name: Part(**{**one, "peers": tuple(one["peers"])}) for name, one in parts.items()}
    return Fleet(**plain)


def _server(document: Mapping[str, Any]) -> Server:
    followers = {host: tuple(gpus) for host, gpus in document.get("followers", {}).items()}
    return Server(**{**document, "gpus": tuple(document["gpus"]), "followers": followers})
