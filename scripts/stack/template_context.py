"""What templates are given to print: a plan, and what is decided while its stack runs, in the shapes that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stack import fleet_tree
from stack.gateway_state import GatewayState, client_limits
from stack.observe import files as observe
from stack.plan.types import Plan


def context_of(plan: Plan, state: GatewayState) -> dict[str, Any]:
    """Name -> value, but for what depends on files of the tree."""
    limits = client_limits(plan, state)
    servers = fleet_tree.servers(plan)
    return {
        "plan": plan,
        "state": state,
        # in their pool and disabled: without its line, the others would change their place in consistent hashing
        "not_run": {*(engine.name for engine in plan.cordoned), *(plan.fleet.not_run if plan.fleet else ())},
        "keys": dict(sorted(state.keys.items())),
        "servers": servers,
        "compose_files": fleet_tree.compose_files(plan),
        **observe.context(plan.watch, list(targets(plan)), len(servers)),
        # mappings and not lists, here and in "models": preloaded lists have no methods in njs
        "clients": {
            name: {
                # in metrics: what many clients would cost is bounded
                "label": name if place < observe.LABELLED_CLIENTS else "others",
                "models": limit["models"] and dict.fromkeys(limit["models"], True),
                "max_body_bytes": limit["max_body_size_mib"] * 2**20,
            }
            for place, (name, limit) in enumerate(limits.items())
        },
        # nginx wants a zone for each distinct limit
        "rates": _by_value(limits, "requests_per_second"),
        "concurrencies": _by_value(limits, "concurrency"),
        "max_body_size_mib": max((limit["max_body_size_mib"] for limit in limits.values()), default=0),
        "models": {
            name: {"pool": pool.name, "task": pool.task}
            | ({"replicas": dict.fromkeys(pool.engines, True)} if pool.has_affinity else {})
            for pool in plan.pools
            for name in (pool.served_model_name, *pool.adapters)
        },
        **fleet_tree.context(plan),
    }


def targets(plan: Plan) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Job -> its scrape targets, as Prometheus reads them."""
    jobs: dict[str, list[Mapping[str, Any]]] = {}
    for target in sorted(plan.targets, key=lambda target: (target.job, target.address)):
        jobs.setdefault(target.job, []).append({"targets": [target.address], "labels": dict(target.labels)})
    return dict(sorted(jobs.items()))


def _by_value(limits: Mapping[str, Mapping[str, Any]], key: str) -> list[tuple[int, list[str]]]:
    values = sorted({limit[key] for limit in limits.values()})
    return [(value, [name for name, limit in limits.items() if limit[key] == value]) for value in values]
