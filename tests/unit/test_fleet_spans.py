"""Replicas over several hosts: placed as one, rendered as parts, one server of the gateways."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from stack.checks import answers
from stack.config.schema import StackConfig
from stack.deploy.running import running_engines
from stack.docker_host import asked_at, ports_of
from stack.errors import InputError
from stack.gateway_state import GatewayState
from stack.hardware import Host
from stack.plan.engines import leader_of
from stack.plan.fleet import places_of
from stack.plan.places import EnginePlace
from stack.plan.types import Plan, plan_from
from stack.preflight import kernels_ports
from stack.render import render
from stacks import ROOT
from unit import fake_docker, given

FRONT = given.host("front", 1, roles=["gateway", "observability"])
QUICK = settings(max_examples=60, deadline=None)
SIZES = st.lists(st.integers(0, 4), min_size=2, max_size=5)


def serving(sizes: list[int]) -> list[Host]:
    return [
        given.host(f"gpu-{n}", 11 + n, size, roles=["engines"], interface="eno1")
        for n, size in enumerate(sizes)
        if size
    ]


def stack(**keys: Any) -> StackConfig:
    spans = {"nnodes": 2, "pipeline_parallel_size": 2, "tensor_parallel_size": 2, **keys}
    return given.config(given.toy(served_model_name="huge", **spans), given.toy(), device="cuda")


def made(hosts: list[Host], **keys: Any) -> dict[str, Plan]:
    return given.fleet(stack(), FRONT, *hosts, **keys)


def places(sizes: list[int], previous: dict[str, EnginePlace] | None = None, **keys: Any) -> dict[str, EnginePlace]:
    return places_of(list(given.fleet(stack(**keys), FRONT, *serving(sizes), previous=previous).values()))


TWO = made(serving([3, 2]))


@QUICK
@for_all(SIZES, st.integers(1, 2))
def test_parts_are_on_hosts_of_their_own_with_gpus_that_nobody_else_has(sizes: list[int], replicas: int) -> None:
    try:
        found = places(sizes, replicas=replicas)
    except InputError:
        return
    parts = {name: place for name, place in found.items() if leader_of(name).startswith("engine-huge")}
    assert len(parts) == 2 * replicas
    for replica in range(replicas):
        own = [place for name, place in parts.items() if leader_of(name) == f"engine-huge-{replica}"]
        assert len({place.host for place in own}) == 2
    assert all(len(place.gpus) == 2 for place in parts.values())
    used = [uuid for place in found.values() for uuid in place.gpus]
    assert len(set(used)) == len(used)
    assert places([*sizes, 4], found, replicas=replicas) == found, "a host more moves nothing"


def test_a_lost_host_moves_the_whole_replica_and_no_other() -> None:
    before = places([2, 2, 2, 2, 1], replicas=2)
    gone = before["engine-huge-1.1"].host
    sizes = [0 if f"gpu-{n}" == gone else size for n, size in enumerate([2, 2, 2, 2, 1])] + [2]
    after = places(sizes, before, replicas=2)
    moved = {name for name in after if after[name] != before[name]}
    assert {leader_of(name) for name in moved} == {"engine-huge-1"}


def test_auto_is_as_many_replicas_as_there_are_pairs_of_hosts() -> None:
    config = given.config(given.toy(nnodes=2, pipeline_parallel_size=2, replicas="auto"), device="cuda")
    found = places_of(list(given.fleet(config, FRONT, *serving([2, 1, 1])).values()))
    assert {leader_of(name) for name in found} == {"engine-toy-0", "engine-toy-1"}


@pytest.mark.parametrize("host", TWO)
def test_a_plan_is_the_same_when_it_is_read_back(host: str) -> None:
    written = json.dumps(TWO[host].as_dict())
    read = plan_from(json.loads(written))
    assert json.dumps(read.as_dict()) == written
    assert read.fleet == TWO[host].fleet


def service(host: str, name: str) -> dict[str, Any]:
    files = render(TWO[host], GatewayState(), ROOT)
    merged: dict[str, Any] = {}
    for path in ("compose.yaml", "compose/fleet.yaml"):
        merged |= yaml.safe_load(files[path])["services"].get(name, {})
    return merged


@pytest.mark.parametrize(
    ("host", "name", "check"),
    [("gpu-0", "engine-huge-0", "/stack/check.py"), ("gpu-1", "engine-huge-0.1", "/stack/follower.py")],
)
def test_a_part_has_the_hosts_network_and_its_own_health_check(host: str, name: str, check: str) -> None:
    found = service(host, name)
    assert found["network_mode"] == "host"
    assert not {"networks", "ports", "privileged", "cap_add", "pid", "ipc"} & found.keys()
    assert found["cap_drop"] == ["ALL"]
    assert found["healthcheck"]["test"][-1] == check


@pytest.mark.parametrize("host", ["gpu-0", "gpu-1"])
def test_every_program_that_its_parts_run_is_in_the_hosts_tree(host: str) -> None:
    files = render(TWO[host], GatewayState(), ROOT)
    named = re.findall(r"/stack/(\w+\.py)", files["compose.yaml"].decode())
    assert {f"compose/engine/{name}" for name in named} <= files.keys()
    assert ("headless.py" in named) == (host == "gpu-1")


def test_an_engine_on_one_host_keeps_its_network() -> None:
    assert "network_mode" not in service("gpu-0", "engine-toy-0")


def test_all_parts_have_the_same_flags_but_their_rank() -> None:
    leader, follower = (
        next(engine for engine in TWO[host].engines if engine.name == name)
        for host, name in (("gpu-0", "engine-huge-0"), ("gpu-1", "engine-huge-0.1"))
    )
    rank = leader.argv.index("--node-rank") + 1
    assert (leader.argv[rank], follower.argv[rank]) == ("0", "1")
    same = [word for place, word in enumerate(follower.argv) if place != rank and word != "--headless"]
    assert same == [word for place, word in enumerate(leader.argv) if place != rank]
    assert answers(vars(leader))
    assert not answers(vars(follower))
    assert leader.environment["VLLM_HOST_IP"] == leader.argv[leader.argv.index("--master-addr") + 1] == "10.0.0.11"
    assert follower.environment["VLLM_HOST_IP"] == "10.0.0.12"


def test_only_the_part_that_leads_is_a_server_and_is_scraped() -> None:
    front = TWO["front"]
    assert front.fleet is not None
    assert set(front.fleet.servers) == {"engine-huge-0", "engine-toy-0"}
    assert next(pool for pool in front.pools if pool.served_model_name == "huge").engines == ("engine-huge-0",)
    assert sum(target.labels.get("model") == "huge" and target.job == "vllm" for target in front.targets) == 1
    rules = "".join(text.decode() for path, text in render(front, GatewayState(), ROOT).items() if "rules" in path)
    assert all(uuid in rules for engine in TWO["gpu-1"].engines for uuid in engine.gpus), "GpuMissing counts all"


def test_a_cordoned_gpu_of_any_part_takes_the_whole_replica_out() -> None:
    follower = next(engine for engine in TWO["gpu-1"].engines if engine.name == "engine-huge-0.1")
    before = places_of(list(TWO.values()))
    out = given.fleet(
        stack(), FRONT, *serving([3, 2]), previous=before, cordoned=frozenset(follower.gpus[:1])
    )  # fmt: skip
    assert out["front"].fleet is not None
    assert out["front"].fleet.not_run == ("engine-huge-0",)
    assert [engine.name for engine in out["gpu-0"].cordoned] == ["engine-huge-0"]
    assert [engine.name for engine in out["gpu-1"].cordoned] == ["engine-huge-0.1"]
    assert b"19000" not in render(out["gpu-0"], GatewayState(), ROOT)["host/nftables/vllm-onprem.nft"]


def test_an_engine_with_the_hosts_network_is_asked_there_and_its_port_is_taken() -> None:
    leads = fake_docker.container("engine-huge-0", environment=("ENGINE_ADDRESS=10.0.0.11", "ENGINE_PORT=18007"))
    follows = fake_docker.container("engine-huge-0.1", environment=("LEADER=10.0.0.11:19007",))
    beside = fake_docker.container("engine-toy-0", addresses={"vllm-onprem_engines": "172.30.0.2"})
    assert [asked_at(one) for one in (leads, follows, beside)] == ["10.0.0.11:18007", None, "172.30.0.2:8000"]
    assert list(ports_of(leads)) == [18007]
    leads.labels["com.docker.compose.config-hash"] = "1"
    assert running_engines("vllm-onprem", fake_docker.engine(leads))["engine-huge-0"]["ports"] == (18007,)


@pytest.mark.parametrize(
    ("host", "range_", "refused"),
    [
        ("gpu-0", "32768\t60999\n", False),
        ("gpu-0", "40000 50000", False),
        ("gpu-1", "1024\t65535\n", True),
        ("front", "1024\t65535\n", False),
    ],
)
def test_ports_of_the_kernel_that_the_firewall_does_not_close_are_refused(
    host: str, range_: str, refused: bool, tmp_path: Path
) -> None:
    setting = tmp_path / "ip_local_port_range"
    setting.write_text(range_)
    assert bool(list(kernels_ports(TWO[host], setting))) == refused
