"""Which engines of a fleet are changed at the same time: never more of a pool than it can spare.

Pure. A replica that spans hosts is one engine here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from stack.deploy.rollout import STOP, EngineHost, Step, steps
from stack.plan.engines import leader_of


def batches(
    hosts: Sequence[EngineHost], drained: frozenset[str], least: Mapping[str, int], default_start: int
) -> list[tuple[Step, ...]]:
    """Batches of steps that are done at once: at most one of a host, and no more of a pool than it can spare.

    drained: replicas that get no request anyway. least: pool, as its engines' names begin -> replicas that serve
    whatever is changed. default_start: seconds for an engine whose start has not been seen.
    """
    serving = {
        (host.name, name)
        for host in hosts
        for name, engine in host.running.items()
        if engine.serving and name not in drained and name == leader_of(name)
    }
    seconds = {host.name: host.start_seconds for host in hosts}
    known = {(host.name, name) for host in hosts for name in host.running if name not in drained}
    todo = steps(hosts)
    found = []
    while todo:
        batch, todo = _next_batch(todo, serving, least)
        for step in batch:
            serving -= step.at
        # a gateway knows no engine that is new here until it gets the new tree, at the end
        serving |= {(step.host, step.engine) for step in batch if step.action != STOP} & known
        gaps = (int(seconds[step.host].get(step.engine, default_start)) if step.short else 0 for step in batch)
        found.append(tuple(replace(step, gap=gap) for step, gap in zip(batch, gaps, strict=True)))
    return found


def _next_batch(
    todo: Sequence[Step], serving: AbstractSet[tuple[str, str]], least: Mapping[str, int]
) -> tuple[list[Step], list[Step]]:
    """(steps that are done at once, the rest), both in their order. One that would leave its pool short whatever is
    done at the same time is the only one of its pool.
    """
    up, busy, touched = Counter(pool_of(name) for _, name in serving), set[str](), set[str]()
    batch: list[Step] = []
    rest: list[Step] = []
    for step in todo:
        if step.hosts & busy:
            rest.append(step)
            busy |= step.hosts
            continue
        pool, away = pool_of(step.engine), len(step.at & serving)
        # a model that the new stack file has no more of may go
        left, shall = up[pool] - away, least.get(pool, 0)
        short = bool(away) and left < shall
        if short and pool in touched:
            rest.append(step)
        else:
            batch.append(replace(step, short=short, left=left, least=shall))
            up[pool] = left
            touched.add(pool)
        busy |= step.hosts
    return batch, rest


def pool_of(engine: str) -> str:
    """What the names of the engines of a pool begin with."""
    return engine.rsplit("-", 1)[0]
