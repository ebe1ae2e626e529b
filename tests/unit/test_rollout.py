"""The order in which a fleet's engines are started, replaced and stopped, as tables; by property: never the last."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given as supposing
from hypothesis import settings
from hypothesis import strategies as some

from stack.deploy.batches import batches
from stack.deploy.rollout import START, STOP, EngineHost, Step, WantedEngine, retired
from stack.deploy.running import RunningEngine

DEFAULT_START = 120
QUICK = settings(max_examples=60, deadline=None)


def host(name: str, running: dict[str, str], wanted: dict[str, str], **start_seconds: float) -> EngineHost:
    """Engines by name, each `hash[:gpu,gpu[:port]]`; a running one whose hash starts with `-` does not serve."""

    def parts(text: str) -> tuple[str, tuple[str, ...], int]:
        version, gpus, port = [*text.split(":"), "", ""][:3]
        return version, tuple(filter(None, gpus.split(","))), int(port or 0)

    def runs(text: str) -> RunningEngine:
        version, gpus, port = parts(text)
        return RunningEngine(version.lstrip("-"), gpus, (port,) if port else (), not version.startswith("-"))

    def wants(text: str) -> WantedEngine:
        version, gpus, port = parts(text)
        return WantedEngine(version, gpus, port or -1)

    return EngineHost(
        name,
        {engine: runs(text) for engine, text in running.items()},
        {engine: wants(text) for engine, text in wanted.items()},
        {engine.replace("_", "-"): seconds for engine, seconds in start_seconds.items()},
    )


def order(hosts: list[EngineHost], drained: str = "", max_unavailable: int = 1) -> list[tuple[Step, ...]]:
    """The batches; of every model as many replicas may be away."""
    names = {name for one in hosts for name in one.wanted if "." not in name}
    pools = Counter(name.rsplit("-", 1)[0] for name in names)
    least = {pool: max(1, count - max_unavailable) for pool, count in pools.items()}
    return batches(hosts, frozenset(drained.split()), least, DEFAULT_START)


def told(order_of: list[tuple[Step, ...]]) -> list[str]:
    """Each step in some words, those of a batch joined."""
    return [
        " + ".join(
            f"{step.host} {step.action} {step.engine}"
            + (f" leaves {step.left} of {step.least} for {step.gap} s" if step.short else "")
            for step in batch
        )
        for batch in order_of
    ]


@pytest.mark.parametrize(
    ("hosts", "drained", "expected"),
    [
        pytest.param(
            [host("h1", {}, {"a-0": "1"}), host("h2", {}, {"a-1": "1"})],
            "",
            ["h1 start a-0 + h2 start a-1"],
            id="nothing runs yet, and nobody misses it",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "1"}), host("h2", {"a-1": "1"}, {"a-1": "1"})], "", [], id="no change"
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {"a-1": "1"}, {"a-1": "2"})],
            "",
            ["h1 replace a-0", "h2 replace a-1"],
            id="a changed flag",
        ),
        pytest.param(
            [host("h1", {"a-0": "2"}, {"a-0": "2"}), host("h2", {"a-1": "1"}, {"a-1": "2"})],
            "",
            ["h2 replace a-1"],
            id="a deploy that was killed goes on with the rest",
        ),
        pytest.param(
            [host("h1", {"a-0": "1", "a-1": "-1"}, {"a-0": "2", "a-1": "2"})],
            "",
            ["h1 replace a-1", "h1 replace a-0"],
            id="those that do not serve come first",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "2"}, a_0=33.4)],
            "",
            ["h1 replace a-0 leaves 0 of 1 for 33 s"],
            id="a single replica",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {"a-1": "1"}, {"a-1": "1"})],
            "a-1",
            ["h1 replace a-0 leaves 0 of 1 for 120 s"],
            id="the other is drained, and is no spare",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {}, {"a-1": "2"})],
            "",
            ["h1 replace a-0 leaves 0 of 1 for 120 s + h2 start a-1"],
            id="a new replica is no spare, as no gateway knows it",
        ),
        pytest.param(
            [host("h1", {"a-0": "-1"}, {"a-0": "2"})], "", ["h1 replace a-0"], id="nobody misses a broken one"
        ),
        pytest.param(
            [host("h1", {"a-0": "1:x"}, {"b-0": "1:x"})],
            "",
            ["h1 stop a-0", "h1 start b-0"],
            id="a model in the place of another that is gone",
        ),
        pytest.param(
            [host("h1", {"a-0": "1:x", "a-1": "1:y"}, {"a-0": "2:x,y"})],
            "",
            ["h1 stop a-1", "h1 replace a-0 leaves 0 of 1 for 120 s"],
            id="a larger engine needs the GPU of one that goes",
        ),
        pytest.param(
            [host("h1", {"a-0": "1:w", "a-1": "1:x"}, {"a-0": "2:w,x", "a-1": "2:y,z"})],
            "",
            ["h1 stop a-1", "h1 replace a-0 leaves 0 of 1 for 120 s", "h1 start a-1"],
            id="a larger engine needs the GPU of one that moves",
        ),
        pytest.param(
            [host("h1", {"a-0": "1::18000"}, {"b-0": "1::18000", "a-1": "1::18001"})],
            "",
            ["h1 start a-1", "h1 stop a-0 leaves 0 of 1 for 120 s", "h1 start b-0"],
            id="a port is needed too",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {}), host("h2", {}, {"a-0": "1"})], "", ["h2 start a-0"], id="one that moves"
        ),
    ],
)
def test_the_steps(hosts: list[EngineHost], drained: str, expected: list[str]) -> None:
    assert told(order(hosts, drained)) == expected


@pytest.mark.parametrize(
    ("max_unavailable", "expected"),
    [
        pytest.param(
            1,
            ["h1 replace a-0", "h1 replace a-1", "h2 replace a-2", "h3 replace a-3"],
            id="one replica after the other",
        ),
        pytest.param(
            2,
            ["h1 replace a-0 + h2 replace a-2", "h1 replace a-1 + h3 replace a-3"],
            id="two at a time, never two of a host",
        ),
        pytest.param(
            9,
            ["h1 replace a-0 + h2 replace a-2 + h3 replace a-3", "h1 replace a-1"],
            id="as many as there are: one stays",
        ),
    ],
)
def test_hosts_work_at_once_as_far_as_a_pool_can_spare_their_replicas(
    max_unavailable: int, expected: list[str]
) -> None:
    hosts = [
        host("h1", {"a-0": "1", "a-1": "1"}, {"a-0": "2", "a-1": "2"}),
        host("h2", {"a-2": "1"}, {"a-2": "2"}),
        host("h3", {"a-3": "1"}, {"a-3": "2"}),
    ]
    assert told(order(hosts, max_unavailable=max_unavailable)) == expected


def test_replicas_of_different_models_go_at_once() -> None:
    hosts = [
        host("h1", {"a-0": "1", "b-0": "1"}, {"a-0": "2", "b-0": "2"}),
        host("h2", {"a-1": "1", "b-1": "1"}, {"a-1": "2", "b-1": "2"}),
    ]
    assert told(order(hosts)) == ["h1 replace a-0", "h1 replace b-0 + h2 replace a-1", "h2 replace b-1"]


def test_without_a_replica_that_may_be_away_only_one_too_many_can_go() -> None:
    hosts = [host("h1", {"a-0": "1", "a-2": "1"}, {"a-0": "2"}), host("h2", {"a-1": "1"}, {"a-1": "1"})]
    assert told(order(hosts, max_unavailable=0)) == ["h1 replace a-0"]  # a-2 serves until the end
    assert told(order([*hosts[1:], host("h1", {"a-0": "1"}, {"a-0": "2"}, a_0=33)], max_unavailable=0)) == [
        "h1 replace a-0 leaves 1 of 2 for 33 s"
    ]


def test_what_has_no_place_any_more_is_stopped_last() -> None:
    moved = host("h1", {"a-0": "1", "b-0": "1"}, {"b-0": "2"})
    assert retired(moved) == ["a-0"]


HASHES = some.sampled_from(["1", "2", "-1"])
NAMES = some.sampled_from([f"{model}-{n}" for model in "ab" for n in range(4)])


@some.composite
def fleets(draw: Any) -> list[EngineHost]:
    return [
        host(name, draw(some.dictionaries(NAMES, HASHES)), draw(some.dictionaries(NAMES, some.just("2"))))
        for name in ("h1", "h2", "h3")
    ]


@QUICK
@supposing(fleets())
def test_after_the_steps_every_engine_is_as_wanted_and_only_what_differs_was_touched(hosts: list[EngineHost]) -> None:
    found = order(hosts)
    steps = [step for batch in found for step in batch]
    assert all(len({step.host for step in batch}) == len(batch) for batch in found)
    for one in hosts:
        mine = [step for step in steps if step.host == one.name]
        assert [step for step in mine if step.action == STOP] == []  # nobody needs another's GPU here
        assert {step.engine for step in mine} == {
            name for name in one.wanted if name not in one.running or one.running[name].hash != "2"
        }
        assert all((step.action == START) == (step.engine not in one.running) for step in mine)


@QUICK
@supposing(fleets(), some.integers(0, 3))
def test_a_pool_has_its_capacity_but_in_steps_that_say_so(hosts: list[EngineHost], max_unavailable: int) -> None:
    up = {(one.name, name) for one in hosts for name, engine in one.running.items() if engine.serving}
    known = {(one.name, name) for one in hosts for name in one.running}
    for batch in order(hosts, max_unavailable=max_unavailable):
        before, touched = up, {(step.host, step.engine) for step in batch}
        up = up - touched
        for pool in "ab":
            mine = [step for step in batch if step.engine.startswith(f"{pool}-") and (step.host, step.engine) in before]
            left = sum(name.startswith(f"{pool}-") for _, name in up)
            assert len([step for step in mine if step.short]) == (bool(mine) and left < mine[0].least)
        up |= touched & known


def in_parts(order_of: list[tuple[Step, ...]]) -> list[str]:
    """The same, a step a line, with what is done to the parts of a replica over hosts before it."""
    return [
        line
        for batch in order_of
        for step in batch
        for line in [*(f"  {part.host} {part.action} {part.engine}" for part in step.parts), *told([(step,)])]
    ]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        pytest.param(
            [host("h1", {}, {"a-0": "1"}), host("h2", {}, {"a-0.1": "1"})],
            ["  h2 start a-0.1", "h1 start a-0"],
            id="those that follow are there when the one that leads starts",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "1"}), host("h2", {"a-0.1": "1"}, {"a-0.1": "1"})], [], id="no change"
        ),
        pytest.param(
            [
                host("h1", {"a-0": "1", "a-1.1": "1"}, {"a-0": "2", "a-1.1": "2"}),
                host("h2", {"a-0.1": "1", "a-1": "1"}, {"a-0.1": "2", "a-1": "2"}),
            ],
            [
                *("  h1 stop a-0", "  h2 stop a-0.1", "  h2 start a-0.1", "h1 replace a-0"),
                *("  h2 stop a-1", "  h1 stop a-1.1", "  h1 start a-1.1", "h2 replace a-1"),
            ],
            id="all of a replica, one replica after the other",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "1"}), host("h2", {"a-0.1": "1"}, {"a-0.1": "2"})],
            ["  h1 stop a-0", "  h2 stop a-0.1", "  h2 start a-0.1", "h1 replace a-0 leaves 0 of 1 for 120 s"],
            id="one part differs",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "1"}), host("h2", {"a-0.1": "1"}, {}), host("h3", {}, {"a-0.1": "1"})],
            ["  h1 stop a-0", "  h2 stop a-0.1", "  h3 start a-0.1", "h1 replace a-0 leaves 0 of 1 for 120 s"],
            id="a part moves",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {}), host("h2", {"a-0.1": "1"}, {"a-0.1": "1"}), host("h3", {}, {"a-0": "1"})],
            ["  h1 stop a-0", "  h2 stop a-0.1", "  h2 start a-0.1", "h3 replace a-0 leaves 0 of 1 for 120 s"],
            id="the one that leads moves: no gateway may send to where it was",
        ),
        pytest.param(
            [host("h1", {"a-0": "1:x"}, {"a-0": "2:x"}), host("h2", {}, {"a-0.1": "2:y"})],
            ["  h1 stop a-0", "  h2 start a-0.1", "h1 replace a-0 leaves 0 of 1 for 120 s"],
            id="a replica grows over hosts",
        ),
        pytest.param(
            [host("h1", {"a-0": "1:x"}, {}), host("h2", {"a-0.1": "1:y"}, {"b-0": "1:y"})],
            ["  h1 stop a-0", "  h2 stop a-0.1", "h1 stop a-0", "h2 start b-0"],
            id="another needs the GPU of a part: the whole replica goes, the part with requests first",
        ),
        pytest.param(
            [host("h1", {"b-0": "1:y"}, {"a-0": "1:x"}), host("h2", {"c-0": "1:z"}, {"a-0.1": "1:z"})],
            ["h2 stop c-0", "  h2 start a-0.1", "h1 start a-0"],
            id="what is in the way of a part goes before",
        ),
    ],
)
def test_a_replica_over_hosts_is_one(hosts: list[EngineHost], expected: list[str]) -> None:
    assert in_parts(order(hosts)) == expected


def test_a_part_that_follows_is_no_spare() -> None:
    hosts = [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {"a-1.1": "1"}, {"a-1.1": "1"})]
    assert [step.short for batch in order(hosts) for step in batch if step.engine == "a-0"] == [True]
