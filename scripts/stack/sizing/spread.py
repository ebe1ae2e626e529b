"""Which host each engine of a fleet runs on. Pure: what has a host keeps it, the rest is spread evenly.

A replica goes to the host with the fewest of its model, of those to the one with the most free GPUs: one host lost
takes as little of every model as it can. Larger engines choose first. One that spans hosts takes the best of them in
the same way, all of one kind: its parts wait for the slowest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Wanted:
    """One engine. sizes: host -> GPUs it would need there; a host that is not in it cannot serve it.

    followers: names of its parts on further hosts, each with as many GPUs. kinds: host -> its kinds of GPU, any number.
    """

    engine: str
    pool: str
    sizes: Mapping[str, int]
    followers: tuple[str, ...] = ()
    kinds: Mapping[str, object] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """Its names, each for a host of its own; the first one leads."""
        return (self.engine, *self.followers)

    @property
    def size(self) -> int:
        """The most GPUs that it may need on one host."""
        return max(self.sizes.values(), default=0)


class Room:
    """What is free while engines are placed. free: host -> GPUs, in the order of the hosts file."""

    def __init__(self, free: Mapping[str, int]) -> None:
        self.free = dict(free)
        self._order = {host: place for place, host in enumerate(free)}
        self._of_pool: Counter[tuple[str, str]] = Counter()
        self._engines: Counter[str] = Counter()

    def keep(self, wanted: Wanted, host: str) -> None:
        """This engine is on this host."""
        self.free[host] -= wanted.sizes[host]
        self._of_pool[host, wanted.pool] += 1
        self._engines[host] += 1

    def put(self, wanted: Wanted) -> tuple[str, ...]:
        """Place an engine: the host of each of its parts; empty where it fits nowhere."""
        fits = [host for host, size in wanted.sizes.items() if self.free[host] >= size]
        # without GPUs (size 0) the engines themselves are what is spread
        fits.sort(
            key=lambda host: (
                self._of_pool[host, wanted.pool], -self.free[host], self._engines[host], self._order[host]
            ),
        )  # fmt: skip
        for best in fits:
            alike = [host for host in fits if wanted.kinds.get(host) == wanted.kinds.get(best)]
            if len(alike) >= len(wanted.parts):
                chosen = tuple(alike[: len(wanted.parts)])
                for host in chosen:
                    self.keep(wanted, host)
                return chosen
        return ()


def spread(wanted: Iterable[Wanted], room: Room, kept: Mapping[str, str]) -> tuple[dict[str, str], list[Wanted]]:
    """(engine -> host, what fits nowhere). kept: engine -> the host that it keeps. Parts are engines by their names."""
    waiting = list(wanted)
    hosts: dict[str, str] = {}
    for one in waiting:
        for part in one.parts if one.engine in kept else ():
            hosts[part] = kept[part]
            room.keep(one, kept[part])
    left = []
    for one in largest_first(one for one in waiting if one.engine not in hosts):
        chosen = room.put(one)
        if chosen:
            hosts |= dict(zip(one.parts, chosen, strict=True))
        else:
            left.append(one)
    return hosts, left


def largest_first(wanted: Iterable[Wanted]) -> Sequence[Wanted]:
    """In the order that they choose their hosts."""
    return sorted(wanted, key=lambda one: (-len(one.parts), -one.size))
