"""What no status tells counts against the objective: streams that broke after their 200, requests given up."""

from __future__ import annotations

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from faults.running import all_serve, ask, hit, in_pool, until
from integration.conftest import ENGINES, PROJECT, URL, Stack
from integration.load import Load
from stack.observe.slo import objectives
from watching import Watched

VICTIM = ENGINES[0]
SCRAPED_SECONDS = 60


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Watched:
    return Watched(PROJECT, stack.state, stack.client)


def bad(watched: Watched) -> float:
    """What counts against the gateway's objective since its parts started: the rule's counters, without its rate."""
    (objective,) = objectives(watched.plan.watch)
    counters = re.sub(r"rate\((.*?)\[\{span\}\]\)", r"\1", objective.bad)
    assert "rate" not in counters
    return float(watched.ask(counters)[0]["value"][1])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_streams_of_an_engine_that_is(stack: Stack, watched: Watched, how: signal.Signals) -> None:
    all_serve(stack)
    until(lambda: bool(watched.ask('up{job="haproxy"} == 1')), time.monotonic(), SCRAPED_SECONDS, "scraped")
    time.sleep(20)  # what went before is counted
    before = bad(watched)
    with Load(URL, stack.key, stack.ca_file, "toy", workers=8, tokens=96, pause=0.05) as load:
        load.wait_for(40, seconds=120)
        at = time.monotonic()
        hit(stack.part(VICTIM), how)
        until(lambda: not in_pool(stack, VICTIM), at, 60, "out of the pool")
        load.wait_for(20, seconds=60)
    broken = len(load.failures("stream"))
    print(f"\n{how.name}:\n{load.table()}")
    assert broken
    assert not load.failures("whole")
    until(lambda: bad(watched) >= before + broken, time.monotonic(), SCRAPED_SECONDS, "counted")
    time.sleep(20)
    counted = bad(watched) - before
    print(f"\n{broken} streams broke, {counted:g} counted", end="")
    # a request that was in flight with them and was sent again may be counted too
    assert counted <= broken + 4
    if how is signal.SIGSTOP:
        hit(stack.part(VICTIM), signal.SIGCONT)
    all_serve(stack)


def given_up(watched: Watched) -> float:
    """Requests that nginx counted so."""
    return float(watched.ask('sum(nginx_http_requests_failed_total{reason="given_up"})')[0]["value"][1])


def test_requests_that_clients_give_up_without_a_byte(stack: Stack, watched: Watched) -> None:
    """Of a whole answer nothing comes until all is there; these are long, and their clients have little patience."""
    all_serve(stack)
    before, patience = given_up(watched), watched.plan.watch["slo"]["given_up_after"] + 0.5

    def gives_up(_: int) -> bool:
        try:
            assert ask(stack, tokens=2000, timeout=patience).status_code == 200
        except requests.Timeout:
            return True
        return False

    with ThreadPoolExecutor(48) as clients:
        lost = sum(clients.map(gives_up, range(48)))
    print(f"\n{lost} of 48 gave up after {patience} s", end="")
    assert lost
    until(lambda: given_up(watched) >= before + lost, time.monotonic(), SCRAPED_SECONDS, "counted")
    assert given_up(watched) == before + lost
