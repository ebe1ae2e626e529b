"""Alerts fire on the real stack when its parts are hurt, and are resolved when they are mended. Waits are shortened."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest

from faults.running import all_serve, ask, hit, until
from integration.conftest import ENGINES, PROJECT, Stack
from stack.reload import reload
from watching import Watched

VICTIM, OTHER = ENGINES
# A scrape, an evaluation, and a probe that is asked once a minute and may take 30 s.
SCRAPED, PROBED = 60, 150


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Iterator[Watched]:
    watched = Watched(PROJECT, stack.state, stack.client)
    with watched.impatient():
        yield watched


def test_a_part_that_is_gone(stack: Stack, watched: Watched) -> None:
    standby = stack.part("haproxy-standby")
    standby.stop(timeout=5)
    try:
        watched.until("TargetDown", True, SCRAPED, job="haproxy")
    finally:
        standby.start()
    watched.until("TargetDown", False, SCRAPED, job="haproxy")


def test_a_target_that_is_forgotten(stack: Stack, watched: Watched) -> None:
    path = watched.live / "prometheus/targets/nginx.json"
    whole = path.read_bytes()
    path.write_text("[]")
    try:
        watched.until("TargetMissing", True, 400, job="nginx")
    finally:
        path.write_bytes(whole)
    watched.until("TargetMissing", False, 400, job="nginx")


def test_a_configuration_that_is_refused(stack: Stack, watched: Watched) -> None:
    path = watched.live / "prometheus/prometheus.yml"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\nno_such_key: 1\n")
    stack.part("prometheus").exec_run(["sh", "-c", "kill -HUP 1"])
    try:
        watched.until("ConfigReloadFailed", True, SCRAPED, job="prometheus")
    finally:
        path.write_bytes(whole)
        reload(PROJECT, ["prometheus"], {}, stack.client)
    watched.until("ConfigReloadFailed", False, SCRAPED, job="prometheus")


def test_prompts_that_are_too_long(stack: Stack, watched: Watched) -> None:
    def refused() -> int:
        return ask(stack, tokens=5000).status_code

    until(lambda: bool(watched.ask('nginx_http_requests_total{client="default"}')), time.monotonic(), 60, "counted")
    for _ in range(3):  # Prometheus sees no rise before it has seen the series
        assert refused() == 400
    time.sleep(20)
    assert {refused() for _ in range(60)} == {400}
    watched.until("ContextRefusals", True, SCRAPED, client="default")
    for _ in range(700):
        assert ask(stack).status_code == 200
    watched.until("ContextRefusals", False, SCRAPED, client="default")


def test_a_replica_that_stays_drained(stack: Stack, watched: Watched) -> None:
    assert stack.script("drain", VICTIM).code == 0
    try:
        # 4 hours are 72 s
        watched.until("ReplicaDrainedTooLong", True, 150, server=VICTIM)
        assert not watched.firing("ReplicaOutOfPool", server=VICTIM)
    finally:
        assert stack.script("drain", VICTIM, "--undo").code == 0
    watched.until("ReplicaDrainedTooLong", False, SCRAPED, server=VICTIM)


def test_a_replica_that_hangs(stack: Stack, watched: Watched) -> None:
    watched.until("ReplicaOutOfPool", False, SCRAPED)  # of a stack that has just come up the last scrape may be older
    hit(stack.part(VICTIM), signal.SIGSTOP)
    try:
        watched.until("ReplicaOutOfPool", True, SCRAPED, server=VICTIM)
        assert not watched.firing("ReplicaOutOfPool", server=OTHER)
    finally:
        hit(stack.part(VICTIM), signal.SIGCONT)
    watched.until("ReplicaOutOfPool", False, SCRAPED, server=VICTIM)


def test_a_replica_that_stops_and_then_all_of_them(stack: Stack, watched: Watched) -> None:
    """Docker's DNS forgets a stopped container, so HAProxy counts its replica as MAINT and not as DOWN."""
    stack.part(VICTIM).stop(timeout=20)
    try:
        for alert, limit in (("EngineDown", SCRAPED), ("ReplicaProbeFailing", PROBED)):
            watched.until(alert, True, limit, server=VICTIM)
            assert not watched.firing(alert, server=OTHER)
        assert not watched.firing("ModelWithoutReplicas")
        stack.part(OTHER).stop(timeout=20)
        watched.until("ModelWithoutReplicas", True, SCRAPED)
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            assert ask(stack).status_code == 503
            time.sleep(0.5)
        watched.until("GatewayErrorBudgetBurn", True, SCRAPED, severity="page")
        watched.until("GatewayProbeFailing", True, PROBED)
        left = json.loads(stack.script("slo", "--json").out)[0]
        assert left["bad"] >= 20
        assert left["remaining"] < 0
    finally:
        for engine in ENGINES:
            stack.part(engine).start()
    all_serve(stack)
    for alert in (
        "EngineDown",
        "ModelWithoutReplicas",
        "ReplicaProbeFailing",
        "GatewayProbeFailing",
    ):
        watched.until(alert, False, PROBED)
    # the short window of five minutes has to be clean
    watched.until("GatewayErrorBudgetBurn", False, 420, window="1h")
