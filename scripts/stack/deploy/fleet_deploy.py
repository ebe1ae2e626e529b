"""Trees of a whole fleet and what they change there, worked out on the controller from what the hosts say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from stack.deploy.batches import batches, pool_of
from stack.deploy.host_state import HostState
from stack.deploy.rollout import EngineHost, Step, WantedEngine, retired
from stack.deploy.running import engine_from
from stack.effects import effects, service_hashes
from stack.errors import InputError, Problem
from stack.gateway_state import GatewayState
from stack.plan.fleet import places_of
from stack.plan.places import EnginePlace
from stack.plan.types import Plan, plan_from
from stack.roll import DEFAULT_START_SECONDS, lack
from stack.tree import checksums

# Seconds of an engine that is not in the plan any more, and of everything beside waiting for engines.
LONGEST_STOP, SLACK = 900, 120


@dataclass(frozen=True)
class HostDeploy:
    """One host: its plan, the checksums of its tree, Compose's hash of each service in it, and what the host says of
    itself.
    """

    plan: Plan
    sums: Mapping[str, str]
    hashes: Mapping[str, str]
    told: HostState


def as_sent(plan: Plan) -> Plan:
    """A plan as its plan.json holds it: a host renders from that one, and what both render has to be the same bytes."""
    return plan_from(json.loads(json.dumps(plan.as_dict(), sort_keys=True)))


def with_hashes(trees: Sequence[tuple[Plan, Mapping[str, bytes]]], told: Mapping[str, HostState]) -> list[HostDeploy]:
    """Compose is asked for many hosts at once: it takes a moment for each."""
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(service_hashes, [files for _, files in trees]))
    return [
        HostDeploy(plan, checksums(files), hashed, told.get(plan.host, HostState()))
        for (plan, files), hashed in zip(trees, hashes, strict=True)
    ]


def as_told(host: HostDeploy) -> dict[str, Any]:
    """One host as plain data, of its state what an order of engines needs."""
    state = host.told
    return {
        "plan": host.plan.as_dict(),
        "sums": dict(host.sums),
        "hashes": dict(host.hashes),
        "drained": sorted(state.gateway.drained),
        "live": dict(state.live),
        "services": dict(state.services),
        "engines": {name: asdict(engine) for name, engine in state.engines.items()},
        "start_seconds": dict(state.start_seconds),
    }


def from_told(told: Mapping[str, Any]) -> HostDeploy:
    """What as_told() made of a host, after its way through JSON."""
    state = HostState(
        gateway=GatewayState(drained=frozenset(told["drained"])), live=told["live"], services=told["services"],
        engines={name: engine_from(engine) for name, engine in told["engines"].items()},
        start_seconds=told["start_seconds"],
    )  # fmt: skip
    return HostDeploy(plan_from(told["plan"]), told["sums"], told["hashes"], state)


def refuse_other_hosts(hosts: Sequence[HostDeploy], wanted: Sequence[str], shown: str) -> None:
    """Raises InputError unless the hosts are those that a release is of: others cannot be brought back to it."""
    here = [host.plan.host for host in hosts]
    differing = sorted(set(here) ^ set(wanted))
    if differing:
        raise InputError(
            shown, f"it is of other hosts than this run; only one of the two has {', '.join(differing)}. All hosts go"
            " back together: leave LIMIT out, or `make deploy` with the stack and the hosts file of then"
        )  # fmt: skip


def told_of(hosts: Sequence[HostDeploy], wanted: Iterable[Iterable[Step]]) -> dict[str, Any]:
    """What the playbook does, as plain data: the batches_of() hosts, and for each host its roles, effects and
    engines to be stopped last. seconds: that a step may take. running: whether a host has a tree of this stack by now.
    """
    return {
        "batches": [[{**asdict(step), "seconds": _seconds(step, hosts)} for step in batch] for batch in wanted],
        "hosts": {
            host.plan.host: {
                "roles": list(host.plan.fleet.roles if host.plan.fleet else ()),
                "effects": effects(host.told.live, host.sums, host.told.services, host.hashes),
                "retired": retired(_engine_host(host)),
                "running": bool(host.told.live),
            }
            for host in hosts
        },
    }


def batches_of(hosts: Sequence[HostDeploy]) -> list[tuple[Step, ...]]:
    """Every engine that is started, replaced or stopped, those of a batch at once."""
    drained = frozenset().union(*(host.told.gateway.drained for host in hosts))
    serving = [_engine_host(host) for host in hosts if host.plan.engines or host.told.engines]
    # hosts that only serve know the replicas of their own alone
    least: dict[str, int] = {}
    for pool in (pool for host in hosts for pool in host.plan.pools if pool.engines):
        name = pool_of(pool.engines[0])
        least[name] = max(pool.least, least.get(name, 0))
    return batches(serving, drained, least, DEFAULT_START_SECONDS)


def refuse_downtime(wanted: Iterable[Iterable[Step]], shown: str) -> None:
    """A gap in service is for a person to want. Raises InputError, naming each and how long it is expected to be."""
    problems = [Problem("models", _gap(step)) for batch in wanted for step in batch if step.short]
    if problems:
        raise InputError(shown, problems)


def refuse_other_places(plans: Sequence[Plan], locked: Mapping[str, EnginePlace], lock: str) -> None:
    """Where engines run is decided on purpose: the lock beside the hosts file says all of it. Raises InputError."""
    places = places_of(plans)
    differing = sorted(name for name in places.keys() | locked.keys() if places.get(name) != locked.get(name))
    if differing:
        some = ", ".join(differing[:5])
        raise InputError(
            lock, f"it does not say where all of these engines run now: {some}. `make place HOSTS=` writes it, or where"
            " only the hosts have the models, ARGS='-e fleet_place=true'. Look at it, commit it, and deploy again"
        )  # fmt: skip


def _seconds(step: Step, hosts: Sequence[HostDeploy]) -> int:
    """Requests in flight done, stopped, started - and where that fails, the same for the one before. Of each act."""
    plan = next(host.plan for host in hosts if host.plan.host == step.host)
    engine = next((engine for engine in plan.engines if engine.name == step.engine), None)
    start, stop = (engine.startup_timeout, engine.stop_grace) if engine else (0, LONGEST_STOP)
    return int(plan.gateway["request_timeout"]) + 2 * (start + stop) + SLACK


def _gap(step: Step) -> str:
    done = {"replace": "replaced", "stop": "stopped"}[step.action]
    return (
        f"{step.engine} on host {step.host!r} has to be {done} and {lack(step.left, step.least)} for about"
        f" {step.gap} s. Add a replica, in a deploy of its own, or set ALLOW_DOWNTIME=1"
    )


def _engine_host(host: HostDeploy) -> EngineHost:
    ports = {opening.service: opening.port for opening in host.plan.fleet.openings} if host.plan.fleet else {}
    wanted = {
        engine.name: WantedEngine(host.hashes[engine.name], engine.gpus, ports[engine.name])
        for engine in host.plan.engines
    }
    return EngineHost(host.plan.host, host.told.engines, wanted, host.told.start_seconds)
