"""What is done to the engines of a fleet, and on each host in which order.

Pure. What an engine was made from is told by Compose's own hash, so a deploy that was cut off goes on with the engines
that are still to be done. A replica that spans hosts is one engine here: all of its parts are done in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stack.deploy.running import RunningEngine
from stack.plan.engines import leader_of

START, REPLACE, STOP = "start", "replace", "stop"


@dataclass(frozen=True)
class WantedEngine:
    """An engine as the new plan has it. hash: Compose's."""

    hash: str
    gpus: tuple[str, ...]
    port: int


@dataclass(frozen=True)
class EngineHost:
    """One host of engines. start_seconds: how long an engine took to be ready when it was last started."""

    name: str
    running: Mapping[str, RunningEngine]
    wanted: Mapping[str, WantedEngine]
    start_seconds: Mapping[str, float]


@dataclass(frozen=True)
class PartStep:
    """What is done to one part of a replica that spans hosts, once the replica is out of the pools."""

    host: str
    engine: str
    action: str


@dataclass(frozen=True)
class Step:
    """One engine, done before the next one of its host is begun. start: it does not run here. replace: it runs as it
    was before. stop: it is not wanted here any more, or as something else, and its GPUs or its port are needed by the
    next one.

    short: of its pool fewer serve meanwhile (`left`) than shall (`least`), for about `gap` seconds. parts: of a replica
    that spans hosts, what is done in this order before it is started: the part that leads is stopped, then those that
    follow it, and those of the new one are started, which wait for their leader.
    """

    host: str
    engine: str
    action: str
    short: bool = False
    left: int = 0
    least: int = 0
    gap: int = 0
    parts: tuple[PartStep, ...] = ()

    @property
    def at(self) -> frozenset[tuple[str, str]]:
        """(host, engine or part) of all that it touches."""
        return frozenset({(self.host, self.engine), *((part.host, part.engine) for part in self.parts)})

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that it touches."""
        return frozenset(host for host, _ in self.at)


def steps(hosts: Sequence[EngineHost]) -> list[Step]:
    """Every step, host by host; of a host those that do not serve first. What they cost is not said yet."""
    return list(_Order(hosts).steps())


def retired(host: EngineHost) -> list[str]:
    """Engines that run on a host and that the new plan has no place for there: stopped last, when no gateway sends them
    a request any more.
    """
    return sorted(host.running.keys() - host.wanted.keys())


class _Order:
    """Works the steps out, without what they cost. running: host -> engines there that are not as wanted yet."""

    def __init__(self, hosts: Sequence[EngineHost]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.running = {host.name: dict(host.running) for host in hosts}

    def steps(self) -> Iterator[Step]:
        for host in self.hosts.values():
            todo = [name for name in host.wanted if name == leader_of(name) and self._differs(host.name, name)]
            for name in sorted(todo, key=lambda one: (one in host.running and host.running[one].serving, one)):
                wanted = [(host.name, name), *self._followers(name)]
                for at, part in wanted:
                    yield from self._out_of_the_way(at, part)
                stops = self._runs(host.name, name)
                over_hosts = len(wanted) > 1 or len(stops) > 1
                starts = [PartStep(at, part, START) for at, part in wanted[1:]]
                parts = (*(PartStep(at, part, STOP) for at, part in stops), *starts) if over_hosts else ()
                yield Step(host.name, name, REPLACE if stops else START, parts=parts)
                # from here on it is as wanted, and in nobody's way
                for at, part in stops:
                    del self.running[at][part]

    def _followers(self, replica: str) -> list[tuple[str, str]]:
        """(host, part) of the parts that are to follow."""
        found = [(host.name, name) for host in self.hosts.values() for name in host.wanted]
        return sorted((one for one in found if one[1] != replica == leader_of(one[1])), key=lambda one: one[1])

    def _runs(self, host: str, replica: str) -> list[tuple[str, str]]:
        """(host, part) of what runs of a replica, the part that leads first: this host's own, or all that has parts."""
        found = [(at, name) for at, running in self.running.items() for name in running if leader_of(name) == replica]
        if self._followers(replica) or any(name != replica for _, name in found):
            return sorted(found, key=lambda one: one[1])
        return [one for one in found if one[0] == host]

    def _differs(self, host: str, replica: str) -> bool:
        for at, part in [(host, replica), *self._followers(replica)]:
            has, wanted = self.hosts[at].running.get(part), self.hosts[at].wanted.get(part)
            if has is None or wanted is None or has.hash != wanted.hash:
                return True
        return False

    def _out_of_the_way(self, host: str, part: str) -> Iterator[Step]:
        wanted = self.hosts[host].wanted[part]
        for other in sorted(self.running[host]):
            replica = leader_of(other)
            if replica == leader_of(part) or other not in self.running[host]:
                continue
            if _in_the_way(self.running[host][other], wanted) and self._is_to_go(host, other):
                runs = self._runs(host, replica)
                # of several parts the one that leads first, which still works on requests
                parts = tuple(PartStep(at, name, STOP) for at, name in runs) if len(runs) > 1 else ()
                yield Step(runs[0][0], replica if parts else other, STOP, parts=parts)
                for at, name in runs:
                    del self.running[at][name]

    def _is_to_go(self, host: str, other: str) -> bool:
        replica = leader_of(other)
        leads = host if other == replica else next((at for at in self.hosts if replica in self.hosts[at].wanted), None)
        return other not in self.hosts[host].wanted or leads is None or self._differs(leads, replica)


def _in_the_way(other: RunningEngine, wanted: WantedEngine) -> bool:
    return bool(set(other.gpus) & set(wanted.gpus)) or wanted.port in other.ports
