"""host/nftables: read by nft itself, and proven by connecting, with a translation such as Docker's behind it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rendered.namespaces import Network, needed, network
from stack.gateway_state import GatewayState
from stack.hardware import Host
from stack.plan.fleet_types import Fleet
from stack.render import render
from stacks import ROOT, plans
from unit import given

RULES = "host/nftables/vllm-onprem.nft"
CONTAINER, PRIVATE_NET = "172.30.0.2", "172.30.0"
FRONT = given.host("front", 1, roles=["gateway"])
WATCH = given.host("watch", 2, roles=["observability"])
SERVING = given.host("gpu", 11, roles=["engines"])


def made(*hosts: Host) -> tuple[Fleet, bytes]:
    """(fleet, rules) of the host `gpu`."""
    plan = given.fleet(given.config(given.toy(replicas=2)), *(hosts or (FRONT, WATCH, SERVING)))["gpu"]
    assert plan.fleet is not None
    return plan.fleet, render(plan, GatewayState(), ROOT)[RULES]


def nft_check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nft", "--check", "-f", path], capture_output=True, text=True, check=False)


def test_nft_accepts_the_rules_of_every_fleet(tmp_path: Path) -> None:
    needed("nft")
    checked = 0
    for name, plan in plans(given.IMAGES, images_built=False):
        if plan.fleet:
            (tmp_path / "rules.nft").write_bytes(render(plan, GatewayState(), ROOT)[RULES])
            done = nft_check(tmp_path / "rules.nft")
            if "Operation not permitted" in done.stderr:
                pytest.skip("NOT CHECKED: nft needs root here")
            assert done.returncode == 0, f"{name}, host {plan.host}: {done.stderr}"
            checked += 1
    assert checked >= 8


def test_nft_refuses_what_is_wrong(tmp_path: Path) -> None:
    needed("nft")
    (tmp_path / "rules.nft").write_bytes(made()[1].replace(b"tcp dport", b"tcp dprt"))
    assert nft_check(tmp_path / "rules.nft").returncode != 0


@pytest.fixture
def net() -> Iterator[Network]:
    """front 10.0.0.1, watch .2, gpu .11 with a container behind its bridge, and third .66, who is in no hosts file."""
    needed("nft")
    with network() as built:
        for host, last in (("front", 1), ("watch", 2), ("gpu", 11), ("third", 66)):
            built.add(host, f"10.0.0.{last}")
        yield built


def container(net: Network, fleet: Fleet, bridge: str | None = None) -> None:
    """A container on the fleet's bridge of `gpu`, published as Docker publishes: by translation, and forwarded."""
    bridge = bridge or fleet.private
    net.add("box")
    net.run("gpu", "ip", "link", "add", bridge, "type", "bridge")
    net.run("gpu", "ip", "link", "set", bridge, "up")
    net.run("gpu", "ip", "address", "add", f"{PRIVATE_NET}.1/24", "dev", bridge)
    net.cable("box", "eth0", "gpu", "box")
    net.run("gpu", "ip", "link", "set", "box", "master", bridge)
    net.run("box", "ip", "address", "add", f"{CONTAINER}/24", "dev", "eth0")
    net.run("box", "ip", "route", "add", "default", "via", f"{PRIVATE_NET}.1")
    net.run("gpu", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    docker = [
        f"dnat to {CONTAINER}:{opening.inside}" for opening in fleet.openings
    ]  # fmt: skip
    rules = "".join(
        f"add rule ip nat prerouting ip daddr {opening.address} tcp dport {opening.port} {to}\n"
        f"add rule ip nat output ip daddr {opening.address} tcp dport {opening.port} {to}\n"
        for opening, to in zip(fleet.openings, docker, strict=True)
    )
    load(
        net,
        b"table ip nat {\n"
        b"chain prerouting { type nat hook prerouting priority dstnat; }\n"
        b"chain output { type nat hook output priority -100; }\n"
        b"}\n" + rules.encode(),
    )
    for inside in {opening.inside for opening in fleet.openings}:
        net.serve("box", CONTAINER, inside)


def load(net: Network, rules: bytes, host: str = "gpu") -> None:
    command = ["ip", "netns", "exec", f"{net.prefix}{host}", "nft", "-f", "-"]
    done = subprocess.run(command, input=rules, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def who_reaches(net: Network, fleet: Fleet) -> dict[str, set[str]]:
    """Host -> services of `gpu` that it gets an answer from."""
    services = {(one.address, one.port): one.service for one in fleet.openings}
    return {
        host: {services[place] for place in net.reached(host, *services)} for host in ("front", "watch", "third", "gpu")
    }


def test_gateways_and_prometheus_get_through_and_a_third_host_does_not(net: Network) -> None:
    fleet, rules = made()
    container(net, fleet)
    every, engines = {"node-exporter", "engine-toy-0", "engine-toy-1"}, {"engine-toy-0", "engine-toy-1"}
    # without the rules everybody does, so what follows is theirs
    assert who_reaches(net, fleet) == {"front": every, "watch": every, "third": every, "gpu": every}
    wanted = {"front": engines, "watch": every, "third": set(), "gpu": every}
    load(net, rules)
    assert who_reaches(net, fleet) == wanted
    # again, as at every change
    load(net, rules)
    assert who_reaches(net, fleet) == wanted


def test_who_left_the_fleet_is_shut_out_and_nothing_else_is_touched(net: Network) -> None:
    fleet, before = made()
    container(net, fleet)
    load(net, before)
    load(net, b"table inet others { chain kept { type filter hook input priority 0; }\n}\n")
    new = given.host("new", 66, roles=["gateway"])
    fleet, after = made(new, WATCH, SERVING)
    load(net, after)
    found = who_reaches(net, fleet)
    assert found["front"] == set()
    assert found["third"] == {"engine-toy-0", "engine-toy-1"}, "the new gateway has this address"
    tables = net.run("gpu", "nft", "list", "tables").stdout
    assert "table inet others" in tables
    assert "table ip nat" in tables


def test_a_neighbour_who_sends_straight_to_a_container_gets_nothing(net: Network) -> None:
    fleet, rules = made()
    container(net, fleet)
    for host in ("third", "front"):
        net.run(host, "ip", "route", "add", f"{PRIVATE_NET}.0/24", "via", "10.0.0.11")
        assert net.reaches(host, CONTAINER, 8000)
    load(net, rules)
    assert not net.reaches("third", CONTAINER, 8000)
    assert not net.reaches("front", CONTAINER, 8000)
    assert net.reaches("front", "10.0.0.11", 18000)


def test_an_engine_answers_and_begins_nothing(net: Network) -> None:
    fleet, rules = made()
    container(net, fleet)
    net.serve("third", "0.0.0.0", 80)
    net.serve("gpu", "0.0.0.0", 22)
    net.run("third", "ip", "route", "add", f"{PRIVATE_NET}.0/24", "via", "10.0.0.11")
    assert net.reaches("box", "10.0.0.66", 80)
    assert net.reaches("box", f"{PRIVATE_NET}.1", 22)
    load(net, rules)
    assert not net.reaches("box", "10.0.0.66", 80)
    assert not net.reaches("box", f"{PRIVATE_NET}.1", 22)
    assert net.reaches("front", "10.0.0.11", 18000)


# Says that it has begun, then what came of one connection that is never tried again by the program.
PATIENT = """
import socket
print("begun", flush=True)
try:
    connection = socket.create_connection(("10.0.0.11", 8443), 20)
    connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(connection.recv(100).split()[1].decode())
except OSError as error:
    print(type(error).__name__)
"""


def test_a_client_is_not_refused_while_docker_has_no_translation_for_nginx(net: Network) -> None:
    fleet, rules = made(WATCH, given.host("gpu", 11, roles=["gateway", "engines"]))
    container(net, fleet, fleet.edge)
    net.serve("box", CONTAINER, 8443)
    translation = f"add rule ip nat prerouting tcp dport 8443 dnat to {CONTAINER}:8443".encode()
    load(net, translation)
    assert net.reaches("third", "10.0.0.11", 8443)
    net.run("gpu", "nft", "flush", "chain", "ip", "nat", "prerouting")
    assert net.run("third", sys.executable, "-c", PATIENT).stdout.split() == ["begun", "ConnectionRefusedError"]

    load(net, rules)
    waiting = net.popen("third", sys.executable, "-c", PATIENT)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "begun\n"
    dropped = ["nft", "list", "chain", "inet", fleet.table, "to_this_host"]
    deadline = time.monotonic() + 10
    while not re.search(r"dport 8443 .*packets [1-9]", net.run("gpu", *dropped).stdout):
        assert time.monotonic() < deadline, "its first packet never came"
        time.sleep(0.05)
    load(net, translation)
    assert waiting.stdout.read() == "200\n"


OTHER = given.host("other", 12, roles=["engines"], interface="eth0")
SPANNING = given.host("gpu", 11, roles=["engines"], interface="eth0")


def spanning() -> tuple[Fleet, bytes]:
    """(fleet, rules) of the host `gpu`, whose engine leads a part on `other`."""
    config = given.config(given.toy(nnodes=2, pipeline_parallel_size=2))
    plan = given.fleet(config, FRONT, WATCH, SPANNING, OTHER)["gpu"]
    assert plan.fleet is not None
    return plan.fleet, render(plan, GatewayState(), ROOT)[RULES]


def test_parts_of_a_replica_over_hosts_reach_one_another_and_nobody_else_reaches_them(net: Network) -> None:
    fleet, rules = spanning()
    part = fleet.parts["engine-toy-0"]
    net.add("other", "10.0.0.12")
    api, master, kernels = (("10.0.0.11", port) for port in (part.port, part.master_port, 40000))
    # vLLM has the master port on every address of its host
    net.run("gpu", "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    elsewhere = ("192.0.2.1", part.master_port)
    for address, port in (api, ("0.0.0.0", part.master_port), kernels, ("192.0.2.1", 40000)):
        net.serve("gpu", address, port)
    for host in ("front", "other", "third"):
        net.run(host, "ip", "route", "add", "192.0.2.1", "via", "10.0.0.11")
    every = {api, master, kernels, elsewhere}
    assert net.reached("third", *every) == every
    load(net, rules)
    assert net.reached("front", *every) == {api}
    assert net.reached("other", *every) == {master, kernels}
    assert net.reached("third", *every) == set()
    assert net.reached("gpu", *every) == every
    # a port of that kind on another address of the host is not this stack's matter
    assert net.reached("third", ("192.0.2.1", 40000)) == {("192.0.2.1", 40000)}


def test_a_part_with_the_hosts_network_begins_nothing_but_with_its_peers(net: Network) -> None:
    _, rules = spanning()
    net.add("other", "10.0.0.12")
    for host, last in (("other", 12), ("third", 66)):
        net.serve(host, f"10.0.0.{last}", 40000)
    places = {("10.0.0.12", 40000), ("10.0.0.66", 40000)}
    load(net, rules)
    code = (
        "import socket, sys\nfor place in sys.argv[1:]:\n    try:\n"
        "        socket.create_connection((place, 40000), 0.8)\n        print(place)\n    except OSError:\n        pass"
    )
    words = [address for address, _ in sorted(places)]
    engines = ["setpriv", "--reuid", "2000", "--regid", "2000", "--clear-groups", "/usr/bin/python3", "-c", code]
    assert net.run("gpu", *engines, *words).stdout.split() == ["10.0.0.12"]
    assert net.run("gpu", "/usr/bin/python3", "-c", code, *words).stdout.split() == words, "the host itself may"
