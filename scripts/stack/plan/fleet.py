"""StackConfig + hosts with roles -> a Plan for each host, of one stack together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack.config.folders import state_dir
from stack.config.schema import StackConfig
from stack.errors import InputError
from stack.hardware import Host
from stack.models.config_json import ModelFacts
from stack.plan.engines import leader_of, make_engine, make_pool, memory_of, pool_names
from stack.plan.fleet_parts import Members, fleet_part, fleet_problems, gateway_of, published_of, watch_of
from stack.plan.fleet_spans import parts_of, span_problems
from stack.plan.fleet_types import Server
from stack.plan.fleet_watching import fleet_targets
from stack.plan.make import OPTIONAL, check_models
from stack.plan.places import EnginePlace, Places
from stack.plan.types import Engine, Plan, Pool
from stack.sizing.fleet_numbers import Numbers, numbers
from stack.sizing.resolve import Files, Sized


@dataclass(frozen=True)
class Given:
    """What a fleet is planned with, beside the stack file and the hosts: as make_plan has it, and places and cordons.

    files: what the planner knows of the models. previous: engine -> the place that it has by now.
    """

    images: Mapping[str, str]
    root: Path
    facts: Mapping[str, ModelFacts]
    files: Files
    rules: Mapping[str, str]
    images_built: bool = False
    shown: str = "stack.yaml"
    previous: Mapping[str, EnginePlace] | None = None
    cordoned: frozenset[str] = frozenset()


def make_fleet(config: StackConfig, hosts: Sequence[Host], given: Given) -> list[tuple[Plan, tuple[Sized, ...]]]:
    """The plan of each host, in the order of the hosts, and what its numbers rest on.

    Raises InputError with every problem.
    """
    problems = [*fleet_problems(config, hosts), *span_problems(config, hosts)]
    if problems:
        raise InputError(given.shown, problems)
    serving = [host for host in hosts if host.has("engines")]
    found = numbers(config, given.files, serving, given.shown)
    wrong = [problem for models in found.models.values() for problem in check_models(models.items(), given.facts)]
    if wrong:
        raise InputError(given.shown, list(dict.fromkeys(wrong)))
    places = Places(config, serving, found, given.shown).places(given.previous or {}, given.cordoned)
    images = frozenset(given.images) - config.images_unwanted
    parts = parts_of(hosts, places)
    members = Members(tuple(hosts), _servers(hosts, places), places, parts, given.cordoned, images)
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, place in places.items():
        names[place.host, leader_of(name).removeprefix("engine-").rsplit("-", 1)[0]].append(name)
    engines = {host.name: _engines(config, host, found, members, names, given) for host in serving}
    pools = _pools(config, found, engines)
    made = []
    for host in hosts:
        plan = _plan(config, host, members, engines, pools, given)
        made.append((plan, found.reasons[found.kinds[host.name]] if host.has("engines") else ()))
    return made


def places_of(plans: Sequence[Plan]) -> dict[str, EnginePlace]:
    """Engine -> its place, of the plans of a fleet, cordoned engines included. Sorted."""
    found = {}
    for plan in plans:
        if plan.fleet:
            ports = {opening.service: opening.port for opening in plan.fleet.openings}
            for engine in (*plan.engines, *plan.cordoned):
                found[engine.name] = EnginePlace(plan.host, engine.gpus, ports[engine.name])
    return dict(sorted(found.items()))


def _servers(hosts: Sequence[Host], places: Mapping[str, EnginePlace]) -> dict[str, Server]:
    addresses = {host.name: str(host.address) for host in hosts}
    followers: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for name, place in places.items():
        if name != leader_of(name):
            followers[leader_of(name)][place.host] = place.gpus
    return {
        name: Server(place.host, addresses[place.host], place.port, place.gpus, followers.get(name, {}))
        for name, place in places.items()
        if name == leader_of(name)
    }


def _engines(
    config: StackConfig,
    host: Host,
    found: Numbers,
    members: Members,
    of_host: Mapping[tuple[str, str], Sequence[str]],
    given: Given,
) -> dict[str, Engine]:
    """A host's engines by name, cordoned ones included. of_host: names by host and pool."""
    served = found.on(host.name)
    pools = pool_names(config)
    here = {index: of_host.get((host.name, pools[index]), ()) for index in served}
    models = {index: served[index].model_copy(update={"replicas": len(names)}) for index, names in here.items()}
    own = config.model_copy(update={"models": tuple(model for model in models.values() if model.replicas)})
    made = {}
    for index, names in here.items():
        memory = memory_of(config, models[index], host, given.facts)
        for name in names:
            replica = int(leader_of(name).rsplit("-", 1)[1])
            gpus, part = members.places[name].gpus, members.parts.get(name)
            made[name] = make_engine(
                own, models[index], pools[index], replica, gpus, memory, given.images["vllm"], given.root, part
            )
    return made


def _pools(config: StackConfig, found: Numbers, engines: Mapping[str, Mapping[str, Engine]]) -> list[Pool]:
    made = []
    for index, name in enumerate(pool_names(config)):
        # one number of sequences for a pool: the smallest of its hosts'
        models = [served[index] for served in found.models.values() if index in served]
        model = min(models, key=lambda one: one.max_num_seqs)
        every = {
            engine.replica: engine.name
            for own in engines.values()
            for engine in own.values()
            if engine.served_model_name == model.served_model_name and engine.name == leader_of(engine.name)
        }
        made.append(make_pool(model, name, [every[replica] for replica in sorted(every)]))
    return made


def _plan(
    config: StackConfig,
    host: Host,
    members: Members,
    engines: Mapping[str, Mapping[str, Engine]],
    pools: Sequence[Pool],
    given: Given,
) -> Plan:
    own = engines.get(host.name, {})
    running = tuple(engine for engine in own.values() if not members.is_cordoned(engine.name))
    used = {uuid for engine in own.values() for uuid in engine.gpus}
    speaks = host.has("gateway") or host.has("observability")
    return Plan(
        project=config.name,
        host=host.name,
        device=config.device,
        images={role: image for role, image in sorted(given.images.items()) if role in members.images},
        nginx_loads_modules=not given.images_built,
        engines=running,
        pools=tuple(pools) if speaks else tuple(_only(pools, own)),
        published=published_of(config, host, members.images),
        targets=fleet_targets(config, members, pools, engines) if host.has("observability") else (),
        gateway=gateway_of(config, host),
        watch=watch_of(config, host, given.rules),
        retention=config.observability.retention,
        state_dir=str(state_dir(config, given.root)),
        gpus_unused=tuple(gpu.uuid for gpu in host.gpus if gpu.uuid not in used | given.cordoned)
        if config.device == "cuda"
        else (),
        cordoned=tuple(engine for engine in own.values() if members.is_cordoned(engine.name)),
        left_out=_left_out(config, host, members),
        fleet=fleet_part(config, host, members),
    )


def _left_out(config: StackConfig, host: Host, members: Members) -> tuple[str, ...]:
    # Grafana is where Prometheus is; logs are shipped from every host
    wanted = OPTIONAL - config.images_unwanted - (frozenset() if host.has("observability") else {"grafana"})
    return tuple(sorted(wanted - members.images))


def _only(pools: Sequence[Pool], own: Mapping[str, Engine]) -> list[Pool]:
    # a host that only serves does not change when another gets or loses a replica
    kept = []
    for pool in pools:
        names = tuple(name for name in pool.engines if name in own)
        if names:
            kept.append(Pool(**{**vars(pool), "engines": names}))
    return kept
