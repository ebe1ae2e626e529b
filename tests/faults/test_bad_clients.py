"""Clients whose requests always fail, and one whose answer takes ten minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import requests

from faults.running import asked, engines_stopped, haproxy, in_pool, stubs
from integration.conftest import ENGINES, URL, Stack
from integration.load import Load

LONG_SECONDS = float(os.environ.get("LONG_SECONDS", "600"))


@pytest.fixture(scope="module", autouse=True)
def without_engines(stack: Stack) -> Iterator[None]:
    with engines_stopped(stack):
        yield


class Poison(Load):
    """Requests that every engine answers with 500."""

    def _body(self, stream: bool) -> dict[str, object]:
        return super()._body(stream) | {"prompt": "poison"}


def test_a_client_whose_requests_always_fail(stack: Stack) -> None:
    key = stack.script("keys", "add", "poison").out.strip()
    try:
        with (
            stubs(stack, "good", "good") as engines,
            Load(URL, stack.key, stack.ca_file, "toy", workers=6, tokens=16, pause=0.05) as good,
        ):
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
