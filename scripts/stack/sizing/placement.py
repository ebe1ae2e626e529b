"""Which GPUs each engine gets. Pure: what ran stays where it ran, neighbours serve together, the rest is spare.

A GPU of the hosts file may say its NVLink island (``nvlink``) and its memory node (``numa``); cards without either
are taken in the file's order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stack.hardware import Gpu, Host


@dataclass(frozen=True)
class Demand:
    """One engine and the number of whole GPUs it needs."""

    engine: str
    gpus: int


@dataclass(frozen=True)
class Placement:
    """GPUs by engine, in the order of the demands; what is spare, and what is cordoned.

    missing: GPUs that are not there, 0 when everything has its place. Then ``taken`` is empty.
    """

    taken: Mapping[str, tuple[Gpu, ...]]
    spare: tuple[Gpu, ...]
    cordoned: tuple[Gpu, ...]
    missing: int = 0


def place(
    demands: Sequence[Demand],
    host: Host,
    previous: Mapping[str, tuple[str, ...]] | None = None,
    cordoned: frozenset[str] = frozenset(),
) -> Placement:
    """Give each demand its GPUs. previous: engine -> uuids of the plan that runs; cordoned: uuids that get nothing.

    An engine keeps the GPUs it has as long as they are there, whole and as many as it needs; nothing else moves for it.
    """
    out = tuple(gpu for gpu in host.gpus if gpu.uuid in cordoned)
    free = {gpu.uuid: gpu for gpu in host.gpus if gpu.uuid not in cordoned}
    missing = sum(demand.gpus for demand in demands) - len(free)
    if missing > 0:
        return Placement({}, tuple(free.values()), out, missing)
    taken: dict[str, tuple[Gpu, ...]] = {}
    for demand in demands:
        kept = (previous or {}).get(demand.engine, ())
        if len(kept) == demand.gpus and len(set(kept)) == len(kept) and all(uuid in free for uuid in kept):
            taken[demand.engine] = tuple(free.pop(uuid) for uuid in kept)
    # engines of several GPUs choose first: single ones fit anywhere
    known = any(gpu.nvlink is not None or gpu.numa is not None for gpu in free.values())
    waiting = [demand for demand in demands if demand.engine not in taken]
    if known:
        waiting.sort(key=lambda demand: -demand.gpus)
    for demand in waiting:
        chosen = _neighbours(list(free.values()), demand.gpus)
        taken[demand.engine] = tuple(free.pop(gpu.uuid) for gpu in chosen)
    return Placement({demand.engine: taken[demand.engine] for demand in demands}, tuple(free.values()), out)


def _neighbours(free: list[Gpu], count: int) -> list[Gpu]:
    # the smallest island that holds all of them leaves the larger ones whole
    for group in (_groups(free, "numa"), _groups(free, "nvlink")):
        enough = [gpus for gpus in group if len(gpus) >= count]
        if enough:
            return min(enough, key=len)[:count]
    # spread over as few islands as possible
    chosen: list[Gpu] = []
    for gpus in sorted(_groups(free, "nvlink"), key=len, reverse=True):
        chosen += gpus[: count - len(chosen)]
    return chosen


def _groups(free: list[Gpu], by: str) -> list[list[Gpu]]:
    groups: dict[tuple[int | None, int | None], list[Gpu]] = defaultdict(list)
    for gpu in free:
        groups[gpu.nvlink, gpu.numa if by == "numa" else None].append(gpu)
    return list(groups.values())
