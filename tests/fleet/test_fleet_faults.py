"""A fleet that loses a part, or whose parts are reloaded, without a deploy: at least 500 requests across each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.bed import StackHost
from fleet.fleet import FLOATING, STREAMS, Fleet, has_address
from integration.load import Load, only_streams_in_flight_broke
from waiting import until

ENGINE = "engine-toy-0"
BOTH = ["gw-a", "gw-b"]
OF = "docker ps --quiet --filter label=com.docker.compose.project=fleet --filter label=com.docker.compose.service="
PID = "docker inspect --format '{{.State.Pid}}'"


@pytest.fixture(scope="module", autouse=True)
def _serving(fleet: Fleet) -> None:
    fleet.up()


def no_failure(load: Load) -> None:
    assert load.failures("whole") + load.failures("stream") == [], load.table()


@contextmanager
def cut_off(host: StackHost) -> Iterator[None]:
    """No packet reaches it or leaves it; Ansible's connection is not by the network."""
    route = host.sh("ip route show default").strip()
    host.sh("ip link set eth0 down")
    try:
        yield
    finally:
        host.sh(f"ip link set eth0 up && ip route replace {route}")


def test_a_replica_killed(fleet: Fleet) -> None:
    host = fleet.hosts["gpu-a"]
    before = host.containers()[ENGINE]
    with fleet.load("kill -9 of a replica") as load:
        host.sh(f"docker exec $({OF}{ENGINE}) python3 -c 'import os; os.kill(-1, 9)'")
        at = time.monotonic()
        until(lambda: host.containers().get(ENGINE, before) != before, 60, "started anew")
        until(lambda: fleet.serves(ENGINE) == [], 60, "out of the pools")
        until(lambda: fleet.serves(ENGINE) == BOTH, 600, "in the pools again")
        print(f"\nserves again after {time.monotonic() - at:.0f} s, n=1")
    only_streams_in_flight_broke(load, at)


def test_a_host_cut_off_and_back(fleet: Fleet) -> None:
    with fleet.load("a host cut off and back") as load:
        at = time.monotonic()
        with cut_off(fleet.hosts["gpu-a"]):
            gone = until(lambda: fleet.serves(ENGINE) == [], 60, "out of the pools")
            load.wait_for(100, 120)
        back = until(lambda: fleet.serves(ENGINE) == BOTH, 120, "in the pools again")
        print(f"\nout of the pools after {gone:.1f} s, back after {back:.1f} s, n=1")
    only_streams_in_flight_broke(load, at + gone)


def test_a_gateway_lost(fleet: Fleet) -> None:
    lost, kept = fleet.answering()
    with fleet.load("the gateway with the floating address lost") as load:
        # not paused: the kernel of a paused one goes on taking connections
        with cut_off(lost):
            took = until(lambda: has_address(kept), 30, f"{FLOATING} moved")
            moved = time.monotonic()
            load.wait_for(100, 120)
        print(f"\nthe floating address moved after {took:.1f} s, n=1")
    failed = load.failures("whole") + load.failures("stream")
    assert all(answer.began <= moved for answer in failed), [answer.began - moved for answer in failed]
    assert len(failed) <= 2 * STREAMS, load.table()


def test_the_parts_of_a_gateway_reloaded_three_times(fleet: Fleet) -> None:
    host, _ = fleet.answering()
    before = host.containers()
    with fleet.load("three reloads each of nginx and both HAProxy") as load:
        for _ in range(3):
            for service, number in (("nginx", "HUP"), ("haproxy", "USR2"), ("haproxy-standby", "USR2")):
                # not by Docker, which does not start again what it has sent a signal
                host.sh(f"kill -s {number} $({PID} $({OF}{service}))")
            load.wait_for(60, 60)
    assert host.restarted(before) == []
    no_failure(load)


@pytest.mark.parametrize("which", ["engines", "gateway"])
def test_docker_restarted_under_containers_that_go_on(fleet: Fleet, which: str) -> None:
    host = fleet.hosts["gpu-a"] if which == "engines" else fleet.answering()[0]
    before = host.containers()
    with fleet.load(f"restart of Docker on a host of the {which}") as load:
        host.sh("systemctl restart docker")
        load.wait_for(100, 120)
    assert host.restarted(before) == []
    no_failure(load)
