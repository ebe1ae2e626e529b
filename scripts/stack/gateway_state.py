"""What is decided while a stack runs, and outlasts `make up`: clients and keys, the certificate, drained replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stack.plan.types import Plan


@dataclass(frozen=True)
class GatewayState:
    """keys: SHA-256 (hex) of an API key -> client. clients: name -> limits, as the plan has them, for clients that were
    added by command. certificate: name of the pair that nginx shows. drained: replicas that get no new request.
    engine_keys, haproxy_key: names of the files with the key that engines ask for and HAProxy sends.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    certificate: str = "none-yet"
    drained: frozenset[str] = frozenset()
    engine_keys: str = "none-yet"
    haproxy_key: str = "none-yet"


def client_limits(plan: Plan, state: GatewayState) -> dict[str, dict[str, Any]]:
    """name -> every limit of a client, those left out filled in from the gateway's own. Sorted."""
    every = {**plan.gateway["clients"], **state.clients}
    own = {key: plan.gateway[key] for key in ("requests_per_second", "concurrency", "max_body_size_mib")}
    return {
        name: {**own, **{key: value for key, value in limit.items() if value is not None}, "models": limit["models"]}
        for name, limit in sorted(every.items())
    }
