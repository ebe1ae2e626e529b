"""What clients see of engines and balancers that die, hang, stop or are reloaded: at least 500 requests across each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from faults.running import ENGINE_START, all_serve, ask, haproxy, healthy, hit, in_pool, until
from integration.conftest import ENGINES, URL, Stack, run_script
from integration.load import Load, only_streams_in_flight_broke

VICTIM, OTHER = ENGINES
STREAMS = 3


@contextmanager
def load_across(stack: Stack, what: str) -> Iterator[Load]:
    """Three streams and three whole answers at a time, from well before the event until 500 answers and its end."""
    with Load(URL, stack.key, stack.ca_file, "toy", workers=2 * STREAMS, tokens=96, pause=0.05) as load:
        load.wait_for(100, seconds=120)
        yield load
        load.wait_for(max(100, 500 - len(load.answers)), seconds=300)
    print(f"\n{what}:\n{load.table()}")
    assert len(load.answers) >= 500


def started(stack: Stack) -> str:
    """When the victim's container was started last."""
    return str(stack.part(VICTIM).attrs["State"]["StartedAt"])


def comes_back(stack: Stack, at: float, old: str) -> None:
    """The victim starts anew, and gets its share of the requests again soon after it is healthy."""
    until(lambda: started(stack) != old, at, 90, "started anew")
    until(partial(healthy, stack, VICTIM), at, ENGINE_START, "healthy")
    until(lambda: in_pool(stack, VICTIM), time.monotonic(), 20, "its traffic back")


def test_an_engine_killed(stack: Stack) -> None:
    with load_across(stack, "kill -9 of one of two engines") as load:
        old = started(stack)
        hit(stack.part(VICTIM), signal.SIGKILL)
        at = time.monotonic()  # the last of its processes is gone
        comes_back(stack, at, old)
    only_streams_in_flight_broke(load, at)


def test_the_core_of_an_engine_killed(stack: Stack) -> None:
    """As after an error of CUDA: the API server lives on for a moment, and answers 500."""
    with load_across(stack, "kill -9 of one engine's EngineCore") as load:
        at, old = time.monotonic(), started(stack)
        done = stack.part(VICTIM).exec_run(["python3", "-c", KILL_CORE])
        assert done.exit_code == 0
        comes_back(stack, at, old)
    only_streams_in_flight_broke(load, at + 5)


KILL_CORE = """
import os, pathlib, signal
pids = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if b"EngineCore" in path.read_bytes()]
[os.kill(pid, signal.SIGKILL) for pid in pids if pid != os.getpid()]
"""  # noqa: E501 - one program


def test_an_engine_that_hangs(stack: Stack) -> None:
    with load_across(stack, "SIGSTOP of one of two engines for 45 s") as load:
        at = time.monotonic()
        hit(stack.part(VICTIM), signal.SIGSTOP)
        try:
            until(lambda: not in_pool(stack, VICTIM), at, 30, "out of the pool")
            time.sleep(max(0.0, at + 30 - time.monotonic()))
            given = haproxy(stack, "haproxy_server_sessions_total", VICTIM)
            load.wait_for(50, seconds=60)
            time.sleep(max(0.0, at + 45 - time.monotonic()))
            assert haproxy(stack, "haproxy_server_sessions_total", VICTIM) == given, "nothing after 30 s"
        finally:
            hit(stack.part(VICTIM), signal.SIGCONT)
        recovered = time.monotonic()
        until(lambda: in_pool(stack, VICTIM), recovered, 20, "its traffic back")
        weight = haproxy(stack, "haproxy_server_weight", VICTIM)
        load.wait_for(60, seconds=60)
        until(lambda: haproxy(stack, "haproxy_server_weight", VICTIM) == 100, recovered, 40, "its full share")
        print(f"\nits weight at first: {weight:.0f} of 100", end="")
    only_streams_in_flight_broke(load, at + 30)
    assert weight < 50


def test_an_engine_told_to_stop(stack: Stack) -> None:
    with load_across(stack, "SIGTERM of one of two engines") as load:
        old = started(stack)
        hit(stack.part(VICTIM), signal.SIGTERM, server_only=True)
        at = time.monotonic()
        comes_back(stack, at, old)
    only_streams_in_flight_broke(load, at)


@pytest.mark.parametrize("service", ["haproxy", "haproxy-standby"])
def test_a_balancer_killed(stack: Stack, service: str) -> None:
    # reloaded before: Docker would not start a part again that it has sent a signal
    assert stack.script("drain", VICTIM).code == 0
    assert stack.script("drain", VICTIM, "--undo").code == 0
    all_serve(stack)
    with load_across(stack, f"kill -9 of {service}") as load:
        old = int(stack.part(service).attrs["State"]["Pid"])
        os.kill(old, signal.SIGKILL)
        at = time.monotonic()
        until(lambda: int(stack.part(service).attrs["State"]["Pid"]) not in (0, old), at, 5, "another process")
        until(lambda: _answers(stack, service), at, 5, "back")
    only_streams_in_flight_broke(load, at)


def _answers(stack: Stack, service: str) -> bool:
    try:
        return haproxy(stack, 'haproxy_server_status{state="UP"}', VICTIM, service) == 1
    except (OSError, LookupError):
        return False


def test_gateway_parts_reloaded_three_times(stack: Stack, tmp_path: Path) -> None:
    gateway = {"listen": "127.0.0.1", "https_port": 18443, "api_keys": ["default", "second"]}
    with load_across(stack, "three reloads each of nginx and both HAProxy") as load:
        for seconds in (899, 898, 900):  # the last is what the stack file has
            path = stack.changed(tmp_path, gateway=gateway | {"request_timeout": seconds})
            done = run_script("up", str(path))
            assert {"reloaded haproxy", "reloaded haproxy-standby", "reloaded nginx"} <= set(done.out.splitlines())
            load.wait_for(60, seconds=60)
    assert not load.failures("whole") + load.failures("stream"), load.table()


def test_no_engine_at_all(stack: Stack) -> None:
    engines = [stack.part(name) for name in ENGINES]
    for engine in engines:
        hit(engine, signal.SIGSTOP)
    at = time.monotonic()
    try:
        until(lambda: not any(in_pool(stack, name) for name in ENGINES), at, 30, "both out of the pool")
        times = []
        for _ in range(20):
            began = time.monotonic()
            answer = ask(stack)
            times.append(time.monotonic() - began)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["error"]["type"] == "server_error"
        print(f"\nno engine: 503 after at most {max(times) * 1000:.0f} ms, n={len(times)}", end="")
        assert max(times) < 1  # promised in docs/gateway.md
    finally:
        for engine in engines:
            hit(engine, signal.SIGCONT)
    began = time.monotonic()
    until(lambda: ask(stack).status_code == 200, began, 20, "served again, by itself")
    all_serve(stack)
