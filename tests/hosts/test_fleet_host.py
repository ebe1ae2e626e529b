"""A host of a fleet, as `make deploy` left it: what its roles say and no more, and who may speak to its ports.

What a host can see of itself: that a third host does not get through is for two hosts to show (tests/fleet).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from hosts.conftest import CURRENT

RULES, LOADED = "/etc/vllm-onprem/firewall.nft", "/run/vllm-onprem-firewall.nft"
PARTS = {"gateway": {"nginx", "haproxy", "haproxy-standby"}, "observability": {"prometheus", "alertmanager"}}


@pytest.fixture(autouse=True)
def fleet(plan: dict[str, Any]) -> dict[str, Any]:
    """The host among the others."""
    if not plan["fleet"]:
        pytest.skip("the host is a stack for itself")
    found: dict[str, Any] = plan["fleet"]
    return found


def test_it_runs_what_its_roles_say_and_nothing_else(
    plan: dict[str, Any], containers: dict[str, Any], roles: list[str], fleet: dict[str, Any]
) -> None:
    engines = {engine["name"] for engine in plan["engines"]}
    assert containers.keys() == {*fleet["services"], *engines}
    assert "engines" in roles or not engines
    for role, parts in PARTS.items():
        assert parts <= containers.keys() if role in roles else not parts & containers.keys()


def test_its_release_names_it_with_these_roles(host: Any, plan: dict[str, Any], roles: list[str]) -> None:
    entries = yaml.safe_load(host.file(f"{CURRENT}/hosts.yaml").content_string)["hosts"]
    own = next(entry for entry in entries if entry["name"] == plan["host"])
    assert set(own.get("roles") or ["engines", "gateway", "observability"]) == set(roles)
    assert own["address"] == plan["fleet"]["address"]


def test_no_clients_key_is_where_no_client_is_answered(host: Any, state: str, roles: list[str]) -> None:
    if "gateway" in roles:
        pytest.skip("a gateway host has them")
    names = set(host.file(f"{state}/secrets/api-keys").listdir())
    assert names <= ({"probe"} if "observability" in roles else set())
    assert [name for name in host.file(f"{state}/tls").listdir() if name.endswith(".key")] == []


def test_ports_between_hosts_are_on_the_private_address_alone(
    fleet: dict[str, Any], containers: dict[str, Any]
) -> None:
    for opening in fleet["openings"]:
        bindings = containers[opening["service"]]["HostConfig"]["PortBindings"][f"{opening['inside']}/tcp"]
        assert {binding["HostIp"] for binding in bindings} == {fleet["address"]}


def test_the_firewall_of_the_applied_tree_is_loaded_now_and_before_docker_at_boot(host: Any, state: str) -> None:
    applied = host.file(f"{state}/live/host/nftables/vllm-onprem.nft").content
    assert host.file(RULES).content == applied
    assert host.file(LOADED).content == applied
    assert host.service("vllm-onprem-firewall").is_enabled
    before = host.check_output("systemctl show --property=Before --value vllm-onprem-firewall").split()
    assert "docker.service" in before


def test_every_port_between_hosts_is_dropped_but_for_its_clients(host: Any, fleet: dict[str, Any]) -> None:
    listed = json.loads(host.check_output(f"nft --json list table inet {fleet['table']}"))["nftables"]
    chains = {entry["chain"]["name"]: entry["chain"] for entry in listed if "chain" in entry}
    # before Docker translates the address: -100 is dstnat
    assert (chains["published"]["hook"], chains["published"]["prio"]) == ("prerouting", -110)
    rules = [entry["rule"]["expr"] for entry in listed if entry.get("rule", {}).get("chain") == "published"]
    dropped = {port for rule in rules if _does(rule, "drop") for port in _right_of(rule, "dport")}
    assert {opening["port"] for opening in fleet["openings"]} <= dropped
    last = rules[-1] if rules else []
    assert not fleet["openings"] or _does(last, "drop")
    for opening in fleet["openings"]:
        accepting = [rule for rule in rules if _does(rule, "accept") and opening["port"] in _right_of(rule, "dport")]
        clients = {address for rule in accepting for address in _right_of(rule, "saddr")}
        assert (opening["service"], clients) == (opening["service"], set(opening["clients"]))


def test_containers_that_answer_other_hosts_begin_nothing(
    host: Any, plan: dict[str, Any], containers: dict[str, Any]
) -> None:
    name = f"{plan['project']}_fleet"
    if not any(name in each["NetworkSettings"]["Networks"] for each in containers.values()):
        pytest.skip("no container of this host is on that network")
    options = json.loads(host.check_output(f"docker network inspect --format '{{{{json .Options}}}}' {name}"))
    assert options["com.docker.network.bridge.enable_icc"] == "false"
    assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"


def test_the_floating_address_can_come_here(host: Any, state: str, fleet: dict[str, Any]) -> None:
    if not fleet["floating"]:
        pytest.skip("no address floats, or not to this host")
    assert host.service("keepalived").is_running
    assert host.service("keepalived").is_enabled
    wanted = host.file(f"{state}/live/host/keepalived/keepalived.conf").content
    assert host.file("/etc/keepalived/keepalived.conf").content == wanted


def _does(rule: list[dict[str, Any]], what: str) -> bool:
    return any(what in statement for statement in rule)


def _right_of(rule: list[dict[str, Any]], field: str) -> set[Any]:
    """What a rule compares a field with: one value, or a set of them."""
    found: set[Any] = set()
    for match in (statement["match"] for statement in rule if "match" in statement):
        left = match["left"].get("payload", {}) if isinstance(match["left"], dict) else {}
        if left.get("field") == field:
            right = match["right"]
            found |= set(right["set"]) if isinstance(right, dict) else {right}
    return found
