"""Engines that answer, and answer badly, with either way of balancing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from faults.running import asked, ended, engines_stopped, in_pool, stubs, until
from integration.conftest import ENGINES, STACK_FILE, URL, Stack
from integration.load import Load

VICTIM = ENGINES[0]


@pytest.fixture(scope="module", autouse=True, params=["least_connections", "prefix_affinity"])
def without_engines(
    stack: Stack, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    models = [model | {"balancing": request.param} for model in yaml.safe_load(STACK_FILE.read_text())["models"]]
    path: Path = stack.changed(tmp_path_factory.mktemp(request.param), models=models)
    done = stack.script("up", stack=path)
    assert done.code == 0, done.err
    with engines_stopped(stack):
        yield
    assert stack.script("up").code == 0


def load_of(stack: Stack) -> Load:
    return Load(URL, stack.key, stack.ca_file, "toy", workers=6, tokens=16, pause=0.05)


def test_an_engine_that_fails_everything_and_its_check(stack: Stack) -> None:
    with stubs(stack, "failing", "good") as (victim, _), load_of(stack) as load:
        load.wait_for(100, seconds=60)
        at = time.monotonic()
        victim.kill(signal="SIGUSR1")
        until(lambda: not in_pool(stack, VICTIM), at, 30, "out of the pool")
        given = asked(victim, "count")
        load.wait_for(200, seconds=120)
        assert asked(victim, "count") == given
        well = time.monotonic()
        victim.kill(signal="SIGUSR2")
        held = until(partial(in_pool, stack, VICTIM), well, 45, "its traffic back")
        load.wait_for(200, seconds=120)
    print(f"\none of two engines answers 500 to all, its check too:\n{load.table()}")
    assert held > 25, "the breaker holds for 30 s from the last check that failed"
    assert not load.failures("whole") + load.failures("stream"), load.table()


def test_an_engine_that_answers_500_to_all_but_its_check(stack: Stack) -> None:
    with stubs(stack, "lying", "good") as (victim, _), load_of(stack) as load:
        load.wait_for(100, seconds=60)
        before, at = asked(victim, "count"), time.monotonic()
        victim.kill(signal="SIGUSR1")
        load.wait_for(400, seconds=120)
        assert asked(victim, "count") > before, "it was asked, and the other one answered"
        until(partial(ended, victim), at, 150, "ended by its watchdog")
    print(f"\none of two engines answers 500 to all, its check 200:\n{load.table()}")
    assert not load.failures("whole") + load.failures("stream"), load.table()


def test_an_engine_whose_answers_are_torn(stack: Stack) -> None:
    """What a client has begun to read cannot be taken back: the watchdog ends such an engine."""
    with stubs(stack, "torn", "good") as (victim, _), load_of(stack) as load:
        load.wait_for(100, seconds=60)
        at = time.monotonic()
        victim.kill(signal="SIGUSR1")
        until(partial(ended, victim), at, 150, "ended by its watchdog")
        until(lambda: not in_pool(stack, VICTIM), at, 170, "out of the pool")
        gone = time.monotonic()
        load.wait_for(400, seconds=120)
    print(f"\none of two engines tears its answers until its watchdog ends it:\n{load.table()}")
    late = [answer for answer in load.answers if answer.error and answer.began > gone]
    assert load.failures("whole"), "the fault was none"
    assert not late, Counter(answer.error for answer in late)
