"""Engines that answer, and answer badly; clients whose requests always fail; an answer that takes ten minutes."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
import requests
from docker.models.containers import Container

from faults.running import ENGINES, engines_stopped, haproxy, in_pool, stubs, until
from integration.conftest import URL, Stack
from integration.load import Load

VICTIM, OTHER = ENGINES
LONG_SECONDS = float(os.environ.get("LONG_SECONDS", "600"))


@pytest.fixture(scope="module", autouse=True)
def without_engines(stack: Stack) -> Iterator[None]:
    with engines_stopped(stack):
        yield


class Poison(Load):
    """Requests that every engine answers with 500."""

    def _body(self, stream: bool) -> dict[str, object]:
        return super()._body(stream) | {"prompt": "poison"}


def load_of(stack: Stack) -> Load:
    return Load(URL, stack.key, stack.ca_file, "toy", workers=6, tokens=16, pause=0.05)


def asked(stub: Container, prompt: str) -> int:
    """Requests with this prompt that reached a stub."""
    return stub.logs().decode().count(f"asked {prompt}\n")


def ended(stub: Container) -> bool:
    stub.reload()
    return str(stub.status) == "exited"


def test_an_engine_that_fails_everything_and_its_check(stack: Stack) -> None:
    with stubs(stack, "failing", "good") as (victim, _), load_of(stack) as load:
        load.wait_for(100, seconds=60)
        at = time.monotonic()
        victim.kill(signal="SIGUSR1")
        until(lambda: not in_pool(stack, VICTIM), at, 30, "out of the pool")
        given = asked(victim, "count")
        load.wait_for(400, seconds=120)
        assert asked(victim, "count") == given
    print(f"\none of two engines answers 500 to all, its check too:\n{load.table()}")
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


def test_a_client_whose_requests_always_fail(stack: Stack) -> None:
    key = stack.script("keys", "add", "poison").out.strip()
    try:
        with stubs(stack, "good", "good") as engines, load_of(stack) as good:
            good.wait_for(50, seconds=60)
            downs = [haproxy(stack, "haproxy_server_check_failures_total", name) for name in ENGINES]
            with Poison(URL, key, stack.ca_file, "toy", workers=4, tokens=1, pause=0.01) as poison:
                while len(poison.answers) < 500:
                    poison.wait_for(1, seconds=30)
                    assert all(in_pool(stack, name) for name in ENGINES)
            good.wait_for(450, seconds=120)
            tries = sum(asked(engine, "poison") for engine in engines)
            assert downs == [haproxy(stack, "haproxy_server_check_failures_total", name) for name in ENGINES]
    finally:
        assert stack.script("keys", "revoke", "poison").code == 0
    print(f"\na client whose requests all end in 500, {tries} tries:\n{poison.table()}\nthe others:\n{good.table()}")
    assert {answer.error for answer in poison.answers} == {"HTTP 500"}
    assert tries < len(poison.answers) * 1.1, "it is not given two engines each time"
    assert not good.failures("whole") + good.failures("stream"), good.table()


def test_a_request_of_ten_minutes(stack: Stack) -> None:
    body = {"model": "toy", "prompt": f"wait {LONG_SECONDS:.0f}", "max_tokens": 3}
    headers = {"Authorization": f"Bearer {stack.key}"}
    with stubs(stack, "good", "good") as engines:
        answer = requests.post(
            f"{URL}/v1/completions", json=body, headers=headers, verify=str(stack.ca_file), timeout=LONG_SECONDS + 60
        )
        tries = sum(asked(engine, "wait") for engine in engines)
    assert (answer.status_code, tries) == (200, 1), answer.text
    assert answer.json()["usage"]["completion_tokens"] == 3
    print(f"\nanswered after {answer.elapsed.total_seconds():.0f} s of silence", end="")
