"""In which order the engines of a fleet are started, replaced and stopped: one at a time, never the last that serves.

Pure. What an engine was made from is told by Compose's own hash, so a deploy that was cut off goes on with the engines
that are still to be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stack.deploy.running import RunningEngine

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
class Step:
    """One engine, done before the next one is begun. start: it does not run here. replace: it runs as it was before.

    stop: it is not wanted here any more, or as something else, and its GPUs or its port are needed by the next one.
    alone: no other replica of its pool serves meanwhile. gap: seconds without an answer that this is expected to cost.
    """

    host: str
    engine: str
    action: str
    alone: bool = False
    gap: int = 0


def rollout(hosts: Sequence[EngineHost], drained: frozenset[str], default_start: int) -> list[Step]:
    """The steps, host by host; of a host those that do not serve first. drained: replicas that get no request anyway.

    default_start: seconds for an engine whose start has not been seen.
    """
    serving = {
        (host.name, name)
        for host in hosts
        for name, engine in host.running.items()
        if engine.serving and name not in drained
    }
    pools = {_pool_of(name) for host in hosts for name in host.wanted}
    steps: list[Step] = []
    for host in hosts:
        for step in _of_host(host):
            alone = False
            if step.action != START and (host.name, step.engine) in serving:
                serving.discard((host.name, step.engine))
                pool = _pool_of(step.engine)
                # a model that the new stack file has no more of may go
                alone = pool in pools and not any(_pool_of(name) == pool for _, name in serving)
            gap = int(host.start_seconds.get(step.engine, default_start)) if alone else 0
            steps.append(Step(step.host, step.engine, step.action, alone, gap))
            # a gateway knows no engine that is new here until it gets the new tree, at the end
            if step.action != STOP and step.engine in host.running and step.engine not in drained:
                serving.add((host.name, step.engine))
    return steps


def retired(host: EngineHost) -> list[str]:
    """Engines that run on a host and that the new plan has no place for there: stopped last, when no gateway sends them
    a request any more.
    """
    return sorted(host.running.keys() - host.wanted.keys())


def _pool_of(engine: str) -> str:
    return engine.rsplit("-", 1)[0]


def _of_host(host: EngineHost) -> Iterator[Step]:
    running = dict(host.running)
    todo = [
        name for name, wanted in host.wanted.items() if name not in running or running[name].hash != wanted.hash
    ]  # fmt: skip
    for name in sorted(todo, key=lambda one: (one in running and running[one].serving, one)):
        wanted = host.wanted[name]
        for other in sorted(running):
            if other != name and _in_the_way(running[other], wanted) and _is_to_go(other, host):
                del running[other]
                yield Step(host.name, other, STOP)
        yield Step(host.name, name, REPLACE if name in running else START)
        # from here on it is as wanted, and in nobody's way
        running.pop(name, None)


def _in_the_way(other: RunningEngine, wanted: WantedEngine) -> bool:
    return bool(set(other.gpus) & set(wanted.gpus)) or wanted.port in other.ports


def _is_to_go(other: str, host: EngineHost) -> bool:
    return other not in host.wanted or host.wanted[other].hash != host.running[other].hash
