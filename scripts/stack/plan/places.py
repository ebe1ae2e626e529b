"""Host, GPUs and port of every engine of a fleet. Pure: what has a place keeps it as long as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.hardware import Host
from stack.plan.engines import engine_name, part_name, pool_names
from stack.plan.fleet_ports import ENGINE_PORTS
from stack.sizing.fleet_numbers import Numbers
from stack.sizing.placement import Demand, place
from stack.sizing.spread import Room, Wanted, largest_first, spread

ANEW = "; engines that run keep their GPUs: without the lock beside the hosts file all are placed anew"
SPANNING = "docs/fleet.md: a model larger than a host"


@dataclass(frozen=True)
class EnginePlace:
    """Where an engine runs: host, uuids of its GPUs, and its port on the host's private address."""

    host: str
    gpus: tuple[str, ...]
    port: int


class Places:
    """Places the engines of one stack file on these hosts (those that run engines)."""

    def __init__(self, config: StackConfig, hosts: Sequence[Host], numbers: Numbers, shown: str) -> None:
        self.config, self.hosts, self.numbers, self.shown = config, hosts, numbers, shown
        self.pools = pool_names(config)
        self._cards = {host: frozenset(kind) for host, kind in numbers.kinds.items()}
        self._sizes = [self._sizes_of(index) for index in range(len(config.models))]

    def places(self, previous: Mapping[str, EnginePlace], cordoned: frozenset[str]) -> dict[str, EnginePlace]:
        """Every engine's place, and of each part where one spans hosts, in the order of pools and replicas. previous:
        where engines run by now; cordoned: uuids that no engine is given anew. Raises InputError where they do not fit.
        """
        counts = self._counts()
        wanted = [self._wanted(index, replica) for index, number in enumerate(counts) for replica in range(number)]
        parts = [(part, one) for one in wanted for part in one.parts]
        kept = self._kept(wanted, previous)
        used = {uuid for one in kept.values() for uuid in one.gpus}
        free = {host.name: [gpu for gpu in host.gpus if gpu.uuid not in used | cordoned] for host in self.hosts}
        room = Room({host: len(gpus) for host, gpus in free.items()})
        for part, engine in parts:
            if part in kept:  # the room counts what is free of its engines
                room.free[kept[part].host] += engine.sizes[kept[part].host]
        on, left = spread(wanted, room, {name: one.host for name, one in kept.items()})
        if left:
            raise InputError(self.shown, [self._misfit(left, room, moved=bool(kept))])
        gpus = {name: one.gpus for name, one in kept.items()}
        for host in self.hosts:
            new = [(part, one) for part, one in parts if on[part] == host.name and part not in kept]
            demands = [Demand(part, one.sizes[host.name]) for part, one in new]
            taken = place(demands, host.model_copy(update={"gpus": tuple(free[host.name])})).taken
            gpus |= {name: tuple(gpu.uuid for gpu in cards) for name, cards in taken.items()}
        ports = _ports(on, previous)
        return {part: EnginePlace(on[part], gpus.get(part, ()), ports[part]) for part, _ in parts}

    def _sizes_of(self, index: int) -> dict[str, int]:
        sizes = {}
        for host in self.hosts:
            model = self.numbers.on(host.name).get(index)
            if model is not None:
                sizes[host.name] = model.gpus_of_a_host if self.config.device == "cuda" else 0
        return sizes

    def _wanted(self, index: int, replica: int) -> Wanted:
        engine = engine_name(self.pools[index], replica)
        followers = tuple(part_name(engine, rank) for rank in range(1, self.config.models[index].nnodes))
        return Wanted(engine, self.pools[index], self._sizes[index], followers, self._cards)

    def _counts(self) -> list[int]:
        # what is said comes first, then one replica of each other model, then the rest in turn
        counts = [number or 1 for number in self.numbers.replicas]
        grows = [index for index, number in enumerate(self.numbers.replicas) if number is None]
        if not grows:
            return counts
        if self.config.device == "cpu":
            each = [model.nnodes for model in self.config.models]
            return [
                number or max(1, len(self.hosts) // hosts)
                for number, hosts in zip(self.numbers.replicas, each, strict=True)
            ]
        room = Room({host.name: len(host.gpus) for host in self.hosts})
        first = [self._wanted(index, replica) for index, number in enumerate(counts) for replica in range(number)]
        left = [one for one in largest_first(first) if not room.put(one)]
        if left:
            raise InputError(self.shown, [self._misfit(left, room, moved=False)])
        while grows:
            for index in list(grows):
                if room.put(self._wanted(index, counts[index])):
                    counts[index] += 1
                else:
                    grows.remove(index)
        return counts

    def _kept(self, wanted: Sequence[Wanted], previous: Mapping[str, EnginePlace]) -> dict[str, EnginePlace]:
        here = {host.name: {gpu.uuid for gpu in host.gpus} for host in self.hosts}
        kept: dict[str, EnginePlace] = {}
        used: set[str] = set()
        for one in wanted:
            # a replica over several hosts stays as a whole or not at all
            had = {part: previous[part] for part in one.parts if part in previous}
            gpus = {uuid for place in had.values() for uuid in place.gpus}
            on = {place.host for place in had.values()}
            if not len(had) == len(on) == len(one.parts) or len({one.kinds.get(host) for host in on}) > 1:
                continue
            right = all(
                place.host in one.sizes
                and len(place.gpus) == len(set(place.gpus)) == one.sizes[place.host]
                and here[place.host].issuperset(place.gpus)
                for place in had.values()
            )
            if right and not gpus & used:
                kept |= had
                used |= gpus
        return kept

    def _misfit(self, left: Sequence[Wanted], room: Room, *, moved: bool) -> Problem:
        first = left[0]
        largest = max((len(host.gpus) for host in self.hosts), default=0)
        index = self.pools.index(first.pool)
        if first.size > largest and not first.followers:
            what = f"{first.size} GPUs are needed on one host, and the largest of the fleet has {largest}"
            span = f"set nnodes, and pipeline_parallel_size to the same, with the GPUs of one host here ({SPANNING})"
            return Problem(f"models[{index}].tensor_parallel_size", f"{what}; lower it, or {span}")
        if first.followers:
            alike = Counter(first.kinds[host] for host, free in room.free.items() if free >= first.size)
            gpus = f" with the same GPUs, {first.size} of them free" if first.size else ""
            what = f"{first.engine} needs {len(first.parts)} hosts{gpus}; there are {max(alike.values(), default=0)}"
            return Problem(f"models[{index}].nnodes", f"{what}{ANEW if moved else ''}")
        needed = ", ".join(f"{number} x {pool} on {size}" for (pool, size), number in Counter(
            (one.pool, one.size) for one in left).items())  # fmt: skip
        have = ", ".join(f"{host}: {gpus}" for host, gpus in room.free.items() if gpus) or "none"
        what = f"no host has the GPUs for {needed} GPUs each (free: {have}); lower replicas, or add a host"
        if moved:
            what += ANEW
        return Problem("models", what)


def _ports(on: Mapping[str, str], previous: Mapping[str, EnginePlace]) -> dict[str, int]:
    ports: dict[str, int] = {}
    taken: dict[str, set[int]] = {host: set() for host in on.values()}
    for engine, host in on.items():
        had = previous.get(engine)
        if had and had.host == host and had.port in ENGINE_PORTS and had.port not in taken[host]:
            ports[engine] = had.port
            taken[host].add(had.port)
    for engine, host in on.items():
        if engine not in ports:
            ports[engine] = next(port for port in count(ENGINE_PORTS.start) if port not in taken[host])
            taken[host].add(ports[engine])
    return ports
