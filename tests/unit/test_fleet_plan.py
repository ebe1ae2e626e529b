"""A fleet's plans: each host has the parts of its roles, and all of them agree on where everything is."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from stack.cordons import without_engines
from stack.errors import StackError
from stack.plan.fleet import places_of
from stack.plan.fleet_ports import ENGINE_PORTS, PART_PORTS
from stack.plan.fleet_types import Fleet
from stack.plan.types import Plan, plan_from
from unit import given

MODELS = (given.toy(replicas=5), given.toy(served_model_name="b", replicas=2, tensor_parallel_size=2))
HOSTS = (
    given.host("gw-a", 1, roles=["gateway"], interface="eno1"),
    given.host("gw-b", 2, 2, roles=["gateway", "engines"], interface="bond0"),
    given.host("watch", 9, roles=["observability"]),
    given.host("gpu-a", 11, 8, roles=["engines"]),
    given.host("gpu-b", 12, 4, roles=["engines"]),
)


def fleet(*models: dict[str, Any], **keys: Any) -> dict[str, Plan]:
    stack = {"device": "cuda", "gateway": {"floating_address": "10.0.0.100"}, **keys}
    return given.fleet(given.config(*(models or MODELS), **stack), *HOSTS)


MADE = fleet()


def part(host: str) -> Fleet:
    found = MADE[host].fleet
    assert found is not None
    return found


def test_each_host_has_the_parts_of_its_roles() -> None:
    gateway, gpu = {"nginx", "haproxy", "haproxy-standby"}, {"dcgm-exporter", "cadvisor"}
    assert {host: set(part(host).services) for host in MADE} == {
        "gw-a": {*gateway, "node-exporter"},
        "gw-b": {*gateway, *gpu, "node-exporter"},
        "watch": {"prometheus", "alertmanager", "blackbox-exporter", "grafana", "node-exporter"},
        "gpu-a": {*gpu, "node-exporter"},
        "gpu-b": {*gpu, "node-exporter"},
    }
    assert {host for host, plan in MADE.items() if plan.engines} == {"gw-b", "gpu-a", "gpu-b"}
    assert {host: [port.service for port in plan.published] for host, plan in MADE.items()} == {
        "gw-a": ["nginx"],
        "gw-b": ["nginx"],
        "watch": ["prometheus", "alertmanager", "grafana"],
        "gpu-a": [],
        "gpu-b": [],
    }


def test_grafana_is_beside_prometheus_where_its_image_is_to_be_had() -> None:
    images = {role: image for role, image in given.IMAGES.items() if role != "grafana"}
    without = given.fleet(given.config(*MODELS, device="cuda"), *HOSTS, images=images)
    assert {host: plan.left_out for host, plan in without.items() if plan.left_out} == {"watch": ("grafana",)}
    turned_off = fleet(observability={"grafana": {"enabled": False}})["watch"]
    assert turned_off.left_out == ()
    for plan in (without["watch"], turned_off):
        assert plan.fleet is not None
        assert "grafana" not in plan.fleet.services
        assert "compose/grafana.yaml" not in plan.fleet.compose_files
        assert "grafana" not in {target.job for target in plan.targets}


def test_engines_are_unique_in_the_fleet_and_every_replica_runs_once() -> None:
    names = Counter(engine.name for plan in MADE.values() for engine in plan.engines)
    assert names == Counter([f"engine-toy-{n}" for n in range(5)] + ["engine-b-0", "engine-b-1"])


def test_both_gateways_list_the_same_servers_in_the_same_order() -> None:
    assert MADE["gw-a"].pools == MADE["gw-b"].pools == MADE["watch"].pools
    assert [pool.engines for pool in MADE["gw-a"].pools] == [
        tuple(f"engine-toy-{n}" for n in range(5)), ("engine-b-0", "engine-b-1"),
    ]  # fmt: skip
    assert list(part("gw-a").servers.items()) == list(part("gw-b").servers.items())


def test_a_server_is_where_its_engine_is_published() -> None:
    published = {
        opening.service: (plan.host, opening.address, opening.port)
        for plan in MADE.values()
        if plan.fleet
        for opening in plan.fleet.openings
        if opening.service.startswith("engine-")
    }
    servers = {name: (one.host, one.address, one.port) for name, one in part("gw-a").servers.items()}
    assert servers == published
    for plan in MADE.values():
        for engine in plan.engines:
            assert part("gw-a").servers[engine.name].gpus == engine.gpus


def test_a_host_that_only_serves_knows_its_own_engines_and_no_clients() -> None:
    plan = MADE["gpu-a"]
    assert {name for pool in plan.pools for name in pool.engines} == {engine.name for engine in plan.engines}
    assert part("gpu-a").servers == {}
    assert plan.gateway["clients"] == {}
    assert plan.targets == ()
    others = fleet(gateway={"api_keys": ["new"], "floating_address": "10.0.0.100"}, observability={"retention": "9d"})
    assert others["gpu-a"].as_dict() | {"retention": "30d"} == plan.as_dict()


def test_what_one_host_gets_or_loses_changes_no_host_that_only_serves() -> None:
    more = given.host("gpu-c", 13, 8, roles=["engines"])
    config = given.config(*MODELS, device="cuda", gateway={"floating_address": "10.0.0.100"})
    changed = given.fleet(config, *HOSTS, more, previous=places_of(list(MADE.values())))
    assert changed["gpu-a"] == MADE["gpu-a"]
    assert changed["gpu-b"] == MADE["gpu-b"]


def test_engines_answer_gateways_and_prometheus_and_exporters_prometheus_alone() -> None:
    for host in MADE:
        for opening in part(host).openings:
            assert opening.address == part(host).address
            asking = {"10.0.0.9"} | ({"10.0.0.1", "10.0.0.2"} if opening.port in ENGINE_PORTS else set())
            assert set(opening.clients) == asking - {opening.address}
        ports = [opening.port for opening in part(host).openings]
        assert len(set(ports)) == len(ports)
    assert part("watch").openings == (), "Prometheus reaches what is on its own host by name"
    assert not {port for port, _ in PART_PORTS.values()} & set(ENGINE_PORTS)


def test_prometheus_scrapes_every_part_of_every_host_where_it_is_published() -> None:
    targets = MADE["watch"].targets
    assert all(not MADE[host].targets for host in MADE if host != "watch")
    by_name = {("node-exporter:9100", "watch"), ("alertmanager:9093", "watch"), ("blackbox-exporter:9115", "watch"),
               ("localhost:9090", "watch"), ("grafana:3000", "watch")}  # fmt: skip
    published = {(f"{opening.address}:{opening.port}", host) for host in MADE for opening in part(host).openings}
    scraped = {(target.address, target.labels["host"]) for target in targets if not target.job.startswith("probe_")}
    assert scraped == published | by_name


def test_engines_are_told_apart_by_host_server_model_and_replica() -> None:
    where = {engine.name: (plan.host, engine) for plan in MADE.values() for engine in plan.engines}
    for job in ("vllm", "probe_replica"):
        found = {target.labels["server"]: target for target in MADE["watch"].targets if target.job == job}
        assert found.keys() == where.keys()
        for name, (host, engine) in where.items():
            labels = found[name].labels
            assert (labels["host"], labels["model"], labels["replica"]) == (
                host, engine.served_model_name, str(engine.replica),
            )  # fmt: skip


def test_each_model_is_probed_through_each_gateway() -> None:
    probes = [target for target in MADE["watch"].targets if target.job == "probe_gateway"]
    found = [(target.labels["host"], target.labels["model"], target.address.split("/")[2]) for target in probes]
    assert sorted(found) == [
        ("gw-a", "b", "10.0.0.1:8443"), ("gw-a", "toy", "10.0.0.1:8443"),
        ("gw-b", "b", "10.0.0.2:8443"), ("gw-b", "toy", "10.0.0.2:8443"),
    ]  # fmt: skip


def test_the_floating_address_has_one_first_host_and_all_know_each_other() -> None:
    found = {host: part(host).floating for host in MADE}
    assert {host for host, one in found.items() if one} == {"gw-a", "gw-b"}
    a, b = found["gw-a"], found["gw-b"]
    assert a is not None
    assert b is not None
    assert a.address == b.address == "10.0.0.100"
    assert a.router_id == b.router_id == 100
    assert a.priority > b.priority > 0
    assert (a.peers, b.peers) == (("10.0.0.2",), ("10.0.0.1",))
    assert (a.interface, b.interface) == ("eno1", "bond0")


@pytest.mark.parametrize("host", MADE)
def test_a_plan_is_the_same_when_it_is_read_back(host: str) -> None:
    written = json.dumps(MADE[host].as_dict())
    read = plan_from(json.loads(written))
    assert json.dumps(read.as_dict()) == written
    assert read.fleet == part(host)


def test_a_host_for_itself_says_nothing_of_a_fleet() -> None:
    assert "fleet" not in given.plan(given.config()).as_dict()


def test_two_stacks_have_bridges_and_tables_of_their_own() -> None:
    one, two = (fleet(name=name)["gpu-a"].fleet for name in ("one", "two"))
    assert one is not None
    assert two is not None
    names = [one.edge, one.private, two.edge, two.private]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 15, "the kernel's limit"
    assert one.table != two.table != part("gpu-a").table == "vllm_onprem"


def test_prometheus_may_take_more_memory_where_it_scrapes_more() -> None:
    few = given.fleet(given.config(), given.host("all", 1), given.host("a", 2, roles=["engines"]))["all"].fleet
    many = given.fleet(
        given.config(given.toy(replicas=800)),
        given.host("all", 1),
        *(given.host(f"h{n}", 2 + n, roles=["engines"]) for n in range(100)),
    )["all"].fleet
    assert few is not None
    assert many is not None
    assert few.prometheus_mib == 4096
    assert many.prometheus_mib > 3 * 4096


def test_a_host_of_a_fleet_is_not_cordoned_behind_its_gateways_back() -> None:
    with pytest.raises(StackError, match="one of a fleet"):
        without_engines(MADE["gpu-a"], [])
