"""GPUs that are not to be used: decided by a person, kept over restarts and `make up`.

A replica on one is not run. It keeps its place in its pool and its GPUs, so no other replica changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from stack.errors import StackError
from stack.plan.types import Engine, Plan
from stack.plan.watching import ENGINE_JOBS, engine_targets


def cordoned(state: Path) -> frozenset[str]:
    """UUIDs of the cordoned GPUs. Raises StackError: damaged."""
    path = _file(state)
    try:
        return frozenset(json.loads(path.read_text())) if path.exists() else frozenset()
    except (ValueError, TypeError):
        raise StackError(f"{path} is damaged: delete it, and cordon again what is to be cordoned") from None


def save(state: Path, uuids: Iterable[str]) -> None:
    """Remember exactly these."""
    partial = _file(state).with_suffix(".partial")
    partial.write_text(json.dumps(sorted(uuids)) + "\n")
    partial.rename(_file(state))


def without_gpus(plan: Plan, uuids: Iterable[str]) -> Plan:
    """The plan in which no engine runs on these GPUs, and every other one does."""
    out = set(uuids)
    return without_engines(plan, {engine.name for engine in _every(plan) if out & set(engine.gpus)})


def without_engines(plan: Plan, names: Iterable[str]) -> Plan:
    """The plan in which exactly these engines are not run. Raises StackError for a host of a fleet."""
    if plan.fleet:
        raise StackError(
            f"{plan.host} is one of a fleet, whose gateways and Prometheus have to know too: cordon where the fleet is"
            " planned, and deploy"
        )
    out = set(names)
    running = tuple(engine for engine in _every(plan) if engine.name not in out)
    return replace(
        plan,
        engines=running,
        cordoned=tuple(engine for engine in _every(plan) if engine.name in out),
        targets=(
            *(target for engine in running for target in engine_targets(engine, plan.pools, plan.host)),
            *(target for target in plan.targets if target.job not in ENGINE_JOBS),
        ),
    )


def _every(plan: Plan) -> list[Engine]:
    place = {name: number for number, name in enumerate(name for pool in plan.pools for name in pool.engines)}
    return sorted((*plan.engines, *plan.cordoned), key=lambda engine: place[engine.name])


def _file(state: Path) -> Path:
    return state / "cordoned.json"
