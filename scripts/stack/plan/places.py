"""Host, GPUs and port of every engine of a fleet. Pure: what has a place keeps it as long as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.hardware import Host
from stack.plan.engines import engine_name, pool_names
from stack.plan.fleet_ports import ENGINE_PORTS
from stack.sizing.fleet_numbers import Numbers
from stack.sizing.placement import Demand, place
from stack.sizing.spread import Room, Wanted, largest_first, spread


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
        self._sizes = [self._sizes_of(index) for index in range(len(config.models))]

    def places(self, previous: Mapping[str, EnginePlace], cordoned: frozenset[str]) -> dict[str, EnginePlace]:
        """Every engine's place, in the order of pools and replicas. previous: where engines run by now; cordoned:
        uuids that no engine is given anew. Raises InputError where they do not fit.
        """
        counts = self._counts()
        wanted = [self._wanted(index, replica) for index, number in enumerate(counts) for replica in range(number)]
        kept = self._kept(wanted, previous)
        used = {uuid for one in kept.values() for uuid in one.gpus}
        free = {host.name: [gpu for gpu in host.gpus if gpu.uuid not in used | cordoned] for host in self.hosts}
        room = Room({host: len(gpus) for host, gpus in free.items()})
        for engine in wanted:
            if engine.engine in kept:  # the room counts what is free of its engines
                room.free[kept[engine.engine].host] += engine.sizes[kept[engine.engine].host]
        on, left = spread(wanted, room, {name: one.host for name, one in kept.items()})
        if left:
            raise InputError(self.shown, [self._misfit(left, room, moved=bool(kept))])
        gpus = {name: one.gpus for name, one in kept.items()}
        for host in self.hosts:
            new = [one for one in wanted if on[one.engine] == host.name and one.engine not in kept]
            demands = [Demand(one.engine, one.sizes[host.name]) for one in new]
            taken = place(demands, host.model_copy(update={"gpus": tuple(free[host.name])})).taken
            gpus |= {name: tuple(gpu.uuid for gpu in cards) for name, cards in taken.items()}
        ports = _ports(on, previous)
        return {
            one.engine: EnginePlace(on[one.engine], gpus.get(one.engine, ()), ports[one.engine]) for one in wanted
        }  # fmt: skip

    def _sizes_of(self, index: int) -> dict[str, int]:
        sizes = {}
        for host in self.hosts:
            model = self.numbers.on(host.name).get(index)
            if model is not None:
                sizes[host.name] = model.tensor_parallel_size if self.config.device == "cuda" else 0
        return sizes

    def _wanted(self, index: int, replica: int) -> Wanted:
        return Wanted(engine_name(self.pools[index], replica), self.pools[index], self._sizes[index])

    def _counts(self) -> list[int]:
        # what is said comes first, then one replica of each other model, then the rest in turn
        counts = [number or 1 for number in self.numbers.replicas]
        grows = [index for index, number in enumerate(self.numbers.replicas) if number is None]
        if not grows:
            return counts
        if self.config.device == "cpu":
            return [number or len(self.hosts) for number in self.numbers.replicas]
        room = Room({host.name: len(host.gpus) for host in self.hosts})
        first = [self._wanted(index, replica) for index, number in enumerate(counts) for replica in range(number)]
        left = [one for one in largest_first(first) if room.put(one) is None]
        if left:
            raise InputError(self.shown, [self._misfit(left, room, moved=False)])
        while grows:
            for index in list(grows):
                if room.put(self._wanted(index, counts[index])) is None:
                    grows.remove(index)
                else:
                    counts[index] += 1
        return counts

    def _kept(self, wanted: Sequence[Wanted], previous: Mapping[str, EnginePlace]) -> dict[str, EnginePlace]:
        here = {host.name: {gpu.uuid for gpu in host.gpus} for host in self.hosts}
        kept: dict[str, EnginePlace] = {}
        used: set[str] = set()
        for one in wanted:
            had = previous.get(one.engine)
            if had is None or had.host not in one.sizes:
                continue
            gpus = set(had.gpus)
            right = len(had.gpus) == len(gpus) == one.sizes[had.host]
            if right and gpus <= here[had.host] and not gpus & used:
                kept[one.engine] = had
                used |= gpus
        return kept

    def _misfit(self, left: Sequence[Wanted], room: Room, *, moved: bool) -> Problem:
        first = left[0]
        largest = max((len(host.gpus) for host in self.hosts), default=0)
        if first.size > largest:
            index = self.pools.index(first.pool)
            what = f"{first.size} GPUs are needed on one host, and the largest of the fleet has {largest}"
            return Problem(f"models[{index}].tensor_parallel_size", f"{what}; lower it")
        needed = ", ".join(f"{number} x {pool} on {size}" for (pool, size), number in Counter(
            (one.pool, one.size) for one in left).items())  # fmt: skip
        have = ", ".join(f"{host}: {gpus}" for host, gpus in room.free.items() if gpus) or "none"
        what = f"no host has the GPUs for {needed} GPUs each (free: {have}); lower replicas, or add a host"
        if moved:
            what += "; engines that run keep their GPUs: without the lock beside the hosts file all are placed anew"
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
