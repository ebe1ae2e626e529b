"""Which host each engine of a fleet runs on. Pure: what has a host keeps it, the rest is spread evenly.

A replica goes to the host with the fewest of its model, of those to the one with the most free GPUs: one host lost
takes as little of every model as it can. Larger engines choose first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """One engine. sizes: host -> GPUs it would need there; a host that is not in it cannot serve it."""

    engine: str
    pool: str
    sizes: Mapping[str, int]

    @property
    def size(self) -> int:
        """The most GPUs that it may need."""
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

    def put(self, wanted: Wanted) -> str | None:
        """Place an engine; None where it fits on no host."""
        fits = [host for host, size in wanted.sizes.items() if self.free[host] >= size]
        if not fits:
            return None
        # without GPUs (size 0) the engines themselves are what is spread
        best = min(
            fits,
            key=lambda host: (
                self._of_pool[host, wanted.pool], -self.free[host], self._engines[host], self._order[host]
            ),
        )  # fmt: skip
        self.keep(wanted, best)
        return best


def spread(wanted: Iterable[Wanted], room: Room, kept: Mapping[str, str]) -> tuple[dict[str, str], list[Wanted]]:
    """(engine -> host, what fits nowhere). kept: engine -> the host that it keeps."""
    waiting = list(wanted)
    hosts: dict[str, str] = {}
    for one in waiting:
        if one.engine in kept:
            hosts[one.engine] = kept[one.engine]
            room.keep(one, kept[one.engine])
    left = []
    for one in largest_first(one for one in waiting if one.engine not in hosts):
        host = room.put(one)
        if host is None:
            left.append(one)
        else:
            hosts[one.engine] = host
    return hosts, left


def largest_first(wanted: Iterable[Wanted]) -> Sequence[Wanted]:
    """In the order that they choose their hosts."""
    return sorted(wanted, key=lambda one: -one.size)
