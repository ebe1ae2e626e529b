"""The rendered trees of a fleet, read as data: each host's Compose files, HAProxy's servers, rules, the firewall."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from stack.gateway_state import GatewayState
from stack.observe.serving import BY_GATEWAY
from stack.plan.fleet import places_of
from stack.plan.types import Plan
from stack.render import render, unit_of
from stack.yaml_input import parsed
from stacks import ROOT
from unit import given
from unit.test_fleet_plan import MADE, fleet, part

STATE = GatewayState({"0" * 64: "default"})
TREES = {host: render(plan, STATE, ROOT) for host, plan in MADE.items()}


def read(host: str, path: str) -> str:
    return TREES[host][path].decode()


def services(host: str) -> dict[str, dict[str, Any]]:
    """A host's services as Compose merges its files: mappings by key, lists end to end."""
    env = dict(line.split("=", 1) for line in read(host, ".env").splitlines() if "=" in line)
    found: dict[str, dict[str, Any]] = {}
    for name in env["COMPOSE_FILE"].split(":"):
        for service, settings in (parsed(read(host, name)).get("services") or {}).items():
            merged = found.setdefault(service, {})
            for key, value in settings.items():
                both = isinstance(value, list) and isinstance(merged.get(key), list)
                merged[key] = merged[key] + value if both else value
    return found


@pytest.mark.parametrize("host", MADE)
def test_compose_runs_the_planned_services_and_no_others(host: str) -> None:
    found = services(host)
    assert set(found) == {*part(host).services, *(engine.name for engine in MADE[host].engines)}
    for name, service in found.items():
        assert service["image"], name
        assert service["cap_drop"] == ["ALL"], name


@pytest.mark.parametrize("host", MADE)
def test_every_opening_is_published_on_the_private_address_alone(host: str) -> None:
    between = {
        (name, port) for name, service in services(host).items() for port in service.get("ports", ()) if "$" not in port
    }
    wanted = {(one.service, f"{one.address}:{one.port}:{one.inside}") for one in part(host).openings}
    assert between == wanted
    assert all(port.startswith("10.0.0.") for _, port in between)


def test_engines_and_exporters_are_on_the_network_that_begins_nothing() -> None:
    found = services("gw-b")
    engine = next(name for name in found if name.startswith("engine-"))
    assert found[engine]["networks"] == ["engines", "fleet"]
    assert found["node-exporter"]["networks"] == ["inner", "fleet"]
    # these reach other hosts
    assert "edge" in found["haproxy"]["networks"]
    assert "edge" in found["haproxy-standby"]["networks"]
    assert "edge" in services("watch")["blackbox-exporter"]["networks"]
    assert "edge" in services("watch")["prometheus"]["networks"]
    network = parsed(read("gw-b", "compose/fleet.yaml"))["networks"]["fleet"]["driver_opts"]
    assert network == {
        "com.docker.network.bridge.name": part("gw-b").private,
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    }


def test_networks_and_volumes_that_are_used_are_there() -> None:
    for host in MADE:
        known: set[str] = set()
        volumes: set[str] = set()
        for name in (path for path in TREES[host] if path.startswith("compose") and path.endswith(".yaml")):
            document = parsed(read(host, name))
            known |= set(document.get("networks") or {})
            volumes |= set(document.get("volumes") or {})
        for service in services(host).values():
            assert set(service["networks"]) <= known
            named = {volume.split(":")[0] for volume in service.get("volumes", ())}
            assert {name for name in named if re.match(r"[a-z]", name)} <= volumes


def test_a_tree_has_no_file_of_another_role() -> None:
    folders = {host: {path.split("/")[0] for path in tree if "/" in path} for host, tree in TREES.items()}
    assert folders == {
        "gw-a": {"compose", "haproxy", "host", "nginx"},
        "gw-b": {"compose", "haproxy", "host", "nginx"},
        "watch": {"blackbox", "compose", "grafana", "host", "prometheus"},
        "gpu-a": {"compose", "host"},
        "gpu-b": {"compose", "host"},
    }
    assert "compose/engine/check.py" in TREES["gpu-a"]
    assert "compose/engine/check.py" not in TREES["gw-a"]


def test_no_container_mounts_what_is_for_the_host() -> None:
    for host, tree in TREES.items():
        ours = [path for path in tree if path.startswith("host/")]
        assert ours
        assert {unit_of(path) for path in ours} == {("host", "none")}
        for service in services(host).values():
            assert not [volume for volume in service.get("volumes", ()) if "/live/host" in volume]
            assert not [volume for volume in service.get("volumes", ()) if re.search(r"/live(:|$)", volume)]


def servers(tree: dict[str, bytes]) -> dict[str, list[tuple[str, ...]]]:
    blocks = tree["haproxy/haproxy.cfg"].decode().split("\nbackend ")[1:]
    return {block.split()[0]: [tuple(line.split()[1:]) for line in block.splitlines() if line.startswith("    server ")]
            for block in blocks if "    server " in block}  # fmt: skip


def test_haproxy_reaches_every_engine_of_the_fleet_by_address_and_port() -> None:
    found = servers(TREES["gw-a"])
    assert found == servers(TREES["gw-b"])
    where = part("gw-a").servers
    for pool in MADE["gw-a"].pools:
        assert found[pool.name] == [(name, f"{where[name].address}:{where[name].port}") for name in pool.engines]
    assert TREES["gw-a"]["haproxy/haproxy.cfg"] == TREES["gw-b"]["haproxy/haproxy.cfg"]
    assert {path: data for path, data in TREES["gw-a"].items() if path.startswith("nginx/")} == {
        path: data for path, data in TREES["gw-b"].items() if path.startswith("nginx/")
    }


def test_a_cordoned_engine_keeps_its_line_and_gets_nothing() -> None:
    config = given.config(given.toy(replicas=3), device="cuda")
    hosts = (given.host("gw", 1, roles=["gateway", "observability"]), given.host("gpu-a", 11, 8, roles=["engines"]))
    first = given.fleet(config, *hosts)
    assert first["gw"].fleet is not None
    out = frozenset(first["gw"].fleet.servers["engine-toy-1"].gpus)
    made = given.fleet(config, *hosts, cordoned=out, previous=places_of(list(first.values())))
    lines = servers(render(made["gw"], STATE, ROOT))["toy"]
    assert [line[0] for line in lines] == ["engine-toy-0", "engine-toy-1", "engine-toy-2"]
    assert lines[1][1:] == ("127.0.0.1:1", "disabled")
    composed = parsed(render(made["gpu-a"], STATE, ROOT)["compose/fleet.yaml"])
    assert "engine-toy-1" not in composed["services"]


def test_the_limit_of_a_scrape_grows_with_the_engines_behind_a_haproxy() -> None:
    def limit(plan: Plan) -> int:
        document = parsed(render(plan, STATE, ROOT)["prometheus/prometheus.yml"])
        return next(int(job["sample_limit"]) for job in document["scrape_configs"] if job["job_name"] == "haproxy")

    hosts = (given.host("all", 1), given.host("a", 2, roles=["engines"]))
    assert limit(given.fleet(given.config(), *hosts)["all"]) == limit(given.plan(given.config())) == 30_000
    assert limit(given.fleet(given.config(given.toy(replicas=400)), *hosts)["all"]) == 3 * 75 * 400


def alerts(host: str, name: str) -> list[dict[str, Any]]:
    files = [read(host, path) for path in TREES[host] if path.startswith("prometheus/rules/")]
    rules = [rule for text in files for group in parsed(text)["groups"] for rule in group["rules"]]
    return [rule for rule in rules if rule.get("alert") == name]


def test_alerts_of_an_engine_name_its_host_and_not_the_gateways() -> None:
    for name in ("ReplicaOutOfPool", "ReplicaDrainedTooLong"):
        (rule,) = alerts("watch", name)
        assert "group_left (host)" in rule["expr"]
    assert alerts("watch", "ReplicaOutOfPool")[0]["labels"]["about"] == "engine", "so HostDown silences it"
    alone = render(given.plan(given.config()), STATE, ROOT)["prometheus/rules/serving.yaml"].decode()
    assert BY_GATEWAY in alone
    assert "group_left" not in alone


def test_missing_gpus_are_counted_for_each_host() -> None:
    wanted = {host: sum(len(engine.gpus) for engine in plan.engines) for host, plan in MADE.items() if plan.engines}
    found = {rule["labels"]["host"]: int(rule["expr"].rsplit("< ", 1)[1]) for rule in alerts("watch", "GpuMissing")}
    assert found == wanted
    for rule in alerts("watch", "GpuMissing"):
        assert rule["expr"].count(f'host="{rule["labels"]["host"]}"') == 2


def test_missing_targets_are_counted_for_each_job_and_host() -> None:
    counted = {(rule["labels"]["job"], rule["labels"]["host"]) for rule in alerts("watch", "TargetMissing")}
    assert counted == {(target.job, target.labels["host"]) for target in MADE["watch"].targets}


def test_the_firewall_names_every_port_and_flushes_its_own_table_alone() -> None:
    for host in MADE:
        text = read(host, "host/nftables/vllm-onprem.nft")
        commands = [line for line in text.splitlines() if line and not line[0].isspace() and line[0] not in "#}"]
        assert commands == ["add table inet vllm_onprem", "flush table inet vllm_onprem", "table inet vllm_onprem {"]
        dropped = re.findall(r"tcp dport \{ ([0-9, ]+) \} counter drop", text)
        ports = sorted(opening.port for opening in part(host).openings)
        assert [sorted(map(int, ports.split(", "))) for ports in dropped] == ([ports] if ports else [])
    # no container of a host that only serves speaks to its engines by this way
    assert part("gpu-a").edge not in read("gpu-a", "host/nftables/vllm-onprem.nft")
    assert part("gw-b").edge in read("gw-b", "host/nftables/vllm-onprem.nft")


def test_keepalived_is_for_gateways_and_asks_their_own_ports() -> None:
    assert {host for host, tree in TREES.items() if "host/keepalived/keepalived.conf" in tree} == {"gw-a", "gw-b"}
    script = read("gw-b", "host/keepalived/check_gateway.sh")
    assert f"http://{part('gw-b').address}:" in script
    asked = set(map(int, re.findall(r"ask (\d+)", script)))
    assert asked == {
        one.port for one in part("gw-b").openings if one.service in {"nginx", "haproxy", "haproxy-standby"}
    }
    without = fleet(gateway={})
    assert not [path for path in render(without["gw-a"], STATE, ROOT) if "keepalived" in path]


@pytest.mark.parametrize("host", MADE)
def test_every_variable_of_a_hosts_compose_files_is_set(host: str) -> None:
    values = {line.split("=", 1)[0] for line in read(host, ".env").splitlines() if "=" in line}
    files = [path for path in TREES[host] if path.endswith(".yaml") and path.startswith("compose")]
    used = {name for path in files for name in re.findall(r"\$\{([A-Z_]+):\?\}", read(host, path))}
    assert used <= values


def test_the_tree_holds_its_own_plan() -> None:
    for host, tree in TREES.items():
        assert json.loads(tree["plan.json"])["fleet"]["address"] == part(host).address
