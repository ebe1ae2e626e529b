"""What nginx and HAProxy are told of clients, limits and TLS."""

from __future__ import annotations

from typing import Any

from stack.config.gateway import Client
from stack.config.schema import StackConfig

# Name of the client that the probe through the gateway is.
PROBE = "probe"


def client_names(config: StackConfig) -> tuple[str, ...]:
    """Who has a key of the gateway: the stack file's clients, and the probe."""
    return tuple(gateway_part(config)["api_keys"])


def gateway_part(config: StackConfig) -> dict[str, Any]:
    """Plan.gateway: the clients with their limits, and what holds for all of them."""
    gateway = config.gateway
    clients = {client.name: client.model_dump(exclude={"name"}) for client in gateway.api_keys}
    # the probe comes as a client: with a key of its own, for every model
    clients.setdefault(PROBE, Client(name=PROBE).model_dump(exclude={"name"}))
    return {
        "server_name": gateway.server_name,
        "https_port": gateway.https_port,
        "api_keys": tuple(clients),
        "clients": clients,
        "requests_per_second": gateway.requests_per_second,
        "concurrency": gateway.concurrency,
        "max_body_size_mib": gateway.max_body_size_mib,
        "request_timeout": gateway.request_timeout,
        "tls": gateway.tls.model_dump() if gateway.tls else None,
    }
