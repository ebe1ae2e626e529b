"""The order in which a fleet's engines are started, replaced and stopped, as tables; by property: never the last."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as supposing
from hypothesis import settings
from hypothesis import strategies as some

from stack.deploy.rollout import START, STOP, EngineHost, Step, WantedEngine, retired, rollout
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


def told(steps: list[Step]) -> list[str]:
    """Each step in a word or four."""
    return [
        f"{step.host} {step.action} {step.engine}" + (f" alone {step.gap}" if step.alone else "") for step in steps
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hosts", "drained", "expected"),
    [
        pytest.param(
            [host("h1", {}, {"a-0": "1"}), host("h2", {}, {"a-1": "1"})],
            "",
            ["h1 start a-0", "h2 start a-1"],
            id="nothing runs yet",
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
            [host("h1", {"a-0": "1"}, {"a-0": "2"}, a_0=33.4)], "", ["h1 replace a-0 alone 33"], id="a single replica"
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {"a-1": "1"}, {"a-1": "1"})],
            "a-1",
            ["h1 replace a-0 alone 120"],
            id="the other is drained, and is no spare",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {}, {"a-1": "2"})],
            "",
            ["h1 replace a-0 alone 120", "h2 start a-1"],
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
            ["h1 stop a-1", "h1 replace a-0 alone 120"],
            id="a larger engine needs the GPU of one that goes",
        ),
        pytest.param(
            [host("h1", {"a-0": "1:w", "a-1": "1:x"}, {"a-0": "2:w,x", "a-1": "2:y,z"})],
            "",
            ["h1 stop a-1", "h1 replace a-0 alone 120", "h1 start a-1"],
            id="a larger engine needs the GPU of one that moves",
        ),
        pytest.param(
            [host("h1", {"a-0": "1::18000"}, {"b-0": "1::18000", "a-1": "1::18001"})],
            "",
            ["h1 start a-1", "h1 stop a-0 alone 120", "h1 start b-0"],
            id="a port is needed too",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {}), host("h2", {}, {"a-0": "1"})], "", ["h2 start a-0"], id="one that moves"
        ),
    ],
)
def test_the_steps(hosts: list[EngineHost], drained: str, expected: list[str]) -> None:
    assert told(rollout(hosts, frozenset(drained.split()), DEFAULT_START)) == expected


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
    steps = rollout(hosts, frozenset(), DEFAULT_START)
    for one in hosts:
        mine = [step for step in steps if step.host == one.name]
        assert [step for step in mine if step.action == STOP] == []  # nobody needs another's GPU here
        assert {step.engine for step in mine} == {
            name for name in one.wanted if name not in one.running or one.running[name].hash != "2"
        }
        assert all((step.action == START) == (step.engine not in one.running) for step in mine)


@QUICK
@supposing(fleets())
def test_a_pool_that_serves_goes_on_serving_but_in_steps_that_say_so(hosts: list[EngineHost]) -> None:
    up = {(one.name, name) for one in hosts for name, engine in one.running.items() if engine.serving}
    known = {(one.name, name) for one in hosts for name in one.running}
    for step in rollout(hosts, frozenset(), DEFAULT_START):
        pool = step.engine.rsplit("-", 1)[0]
        was_up = (step.host, step.engine) in up
        up.discard((step.host, step.engine))
        others = {name for _, name in up if name.startswith(f"{pool}-")}
        assert step.alone == (was_up and not others)
        if (step.host, step.engine) in known:
            up.add((step.host, step.engine))


def in_parts(steps: list[Step]) -> list[str]:
    """The same with what is done to the parts of a replica over hosts before it."""
    return [
        line
        for step, [line] in ((step, told([step])) for step in steps)
        for line in [*(f"  {part.host} {part.action} {part.engine}" for part in step.parts), line]
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
            ["  h1 stop a-0", "  h2 stop a-0.1", "  h2 start a-0.1", "h1 replace a-0 alone 120"],
            id="one part differs",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {"a-0": "1"}), host("h2", {"a-0.1": "1"}, {}), host("h3", {}, {"a-0.1": "1"})],
            ["  h1 stop a-0", "  h2 stop a-0.1", "  h3 start a-0.1", "h1 replace a-0 alone 120"],
            id="a part moves",
        ),
        pytest.param(
            [host("h1", {"a-0": "1"}, {}), host("h2", {"a-0.1": "1"}, {"a-0.1": "1"}), host("h3", {}, {"a-0": "1"})],
            ["  h1 stop a-0", "  h2 stop a-0.1", "  h2 start a-0.1", "h3 replace a-0 alone 120"],
            id="the one that leads moves: no gateway may send to where it was",
        ),
        pytest.param(
            [host("h1", {"a-0": "1:x"}, {"a-0": "2:x"}), host("h2", {}, {"a-0.1": "2:y"})],
            ["  h1 stop a-0", "  h2 start a-0.1", "h1 replace a-0 alone 120"],
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
    assert in_parts(rollout(hosts, frozenset(), DEFAULT_START)) == expected


def test_a_part_that_follows_is_no_spare() -> None:
    hosts = [host("h1", {"a-0": "1"}, {"a-0": "2"}), host("h2", {"a-1.1": "1"}, {"a-1.1": "1"})]
    assert [step.alone for step in rollout(hosts, frozenset(), DEFAULT_START) if step.engine == "a-0"] == [True]
