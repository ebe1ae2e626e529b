"""The rendered tree as a whole: deterministic, complete, without a secret, and strict about its templates."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack.api_keys import ensure_keys, key_file, key_hashes
from stack.effects import service_hashes
from stack.errors import StackError
from stack.gateway_state import GatewayState
from stack.plan.types import Plan
from stack.render import MANIFEST, STATIC, render, unit_of
from stacks import ROOT
from unit import given
from unit.every_tree import digest

HASHES = {"0" * 64: "alice", "f" * 64: "bob"}
STATE = GatewayState(HASHES)


@pytest.fixture
def plan() -> Plan:
    return given.plan(given.config(given.toy(replicas=2)))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a tree is rendered from, to be damaged."""
    for name in ("compose", "grafana", "nginx", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_plan_of_the_repository_renders_and_to_the_same_bytes_in_every_process() -> None:
    paths = [str(ROOT / "scripts"), str(ROOT / "tests")]
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # in any case another than this process's
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "unit.every_tree"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == f"{digest()}\n"


def test_rendering_twice_gives_the_same_bytes_in_the_same_order(plan: Plan) -> None:
    assert list(render(plan, STATE, ROOT).items()) == list(render(plan, STATE, ROOT).items())


def test_the_order_in_which_keys_were_found_does_not_show(plan: Plan) -> None:
    assert render(plan, STATE, ROOT) == render(plan, GatewayState(dict(reversed(HASHES.items()))), ROOT)


def test_every_static_file_is_there_at_the_same_path_with_the_same_bytes(plan: Plan) -> None:
    tree = render(plan, STATE, ROOT)
    starts = [ROOT / name for name in STATIC]
    static = [path for start in starts for path in ([start] if start.is_file() else start.rglob("*")) if path.is_file()]
    assert len(static) > len(STATIC)
    for path in static:
        assert tree[path.relative_to(ROOT).as_posix()] == path.read_bytes()


def test_every_template_is_rendered_at_its_own_path(plan: Plan) -> None:
    cpu = given.config(gateway={"floating_address": "10.0.0.100"})
    other = given.host("other", 2, roles=["gateway", "engines"], interface="eth0")
    fleet = given.fleet(cpu, given.host("all", 1, interface="eth0"), other)["all"]
    tree = render(plan, STATE, ROOT) | render(fleet, STATE, ROOT)
    jobs = {target.job for target in plan.targets}
    for path in (ROOT / "templates").rglob("*.j2"):
        name = path.relative_to(ROOT / "templates").as_posix().removesuffix(".j2")
        for expected in [name.replace("each_job", job) for job in jobs]:
            assert expected in tree


def test_the_tree_holds_nothing_else(plan: Plan) -> None:
    sources = {
        path.relative_to(ROOT).as_posix() for name in STATIC for path in (ROOT / name, *(ROOT / name).rglob("*"))
    }
    templates = {path.relative_to(ROOT / "templates").as_posix() for path in (ROOT / "templates").rglob("*.j2")}
    assert {path for path in render(plan, STATE, ROOT) if path.startswith(("host/", "compose/fleet"))} == set()
    targets = {f"prometheus/targets/{target.job}.json" for target in plan.targets}
    others = set(render(plan, STATE, ROOT)) - sources - targets - {path.removesuffix(".j2") for path in templates}
    watched = {f"prometheus/rules/{name}.yaml" for name in ("gateway", "host", "monitoring", "serving", "slo")}
    assert others == {"plan.json", "nginx/revision.json", MANIFEST, "prometheus/alertmanager.yml", *watched}


def test_a_path_that_is_both_static_and_a_template_is_refused(plan: Plan, project: Path) -> None:
    (project / "templates/nginx/nginx.conf.j2").write_text("# {{ plan.project }}\n")
    with pytest.raises(StackError, match=r"nginx/nginx\.conf is both"):
        render(plan, STATE, project)


@pytest.mark.parametrize(
    "text",
    ["{{ no_such_thing }}", "{{ plan.no_such_key }}", "{% for x in nothing %}{% endfor %}", "{{ plan.", "{% if %}"],
)
def test_a_template_that_asks_for_what_is_not_there_is_refused_by_name(plan: Plan, project: Path, text: str) -> None:
    (project / "templates/nginx/conf.d/odd.conf.j2").write_text(text)
    with pytest.raises(StackError, match=r"templates/nginx/conf\.d/odd\.conf\.j2"):
        render(plan, STATE, project)


def test_the_manifest_lists_every_file_but_itself_as_it_is(plan: Plan) -> None:
    tree = render(plan, STATE, ROOT)
    entries = json.loads(tree[MANIFEST])["files"]
    assert [entry["path"] for entry in entries] == sorted(tree.keys() - {MANIFEST})
    for entry in entries:
        assert entry["sha256"] == hashlib.sha256(tree[entry["path"]]).hexdigest()
        assert entry["mode"] == "0644"
        assert (entry["unit"], entry["on_change"]) == unit_of(entry["path"])


@pytest.mark.parametrize(
    ("path", "unit", "needs"),
    [
        ("nginx/nginx.conf", "nginx", "reload"),
        ("nginx/keys.json", "nginx", "reload"),
        ("haproxy/haproxy.cfg", "haproxy", "reload"),
        ("prometheus/prometheus.yml", "prometheus", "reload"),
        ("prometheus/rules/serving.yaml", "prometheus", "reload"),
        ("prometheus/targets/vllm.json", "prometheus", "none"),
        ("prometheus/alertmanager.yml", "alertmanager", "reload"),
        ("grafana/dashboards/vllm-fleet.json", "grafana", "none"),
        ("grafana/provisioning/datasources/prometheus.yaml", "compose", "recreate"),
        ("compose.yaml", "compose", "recreate"),
        ("compose/edge.yaml", "compose", "recreate"),
        (".env", "compose", "recreate"),
        ("plan.json", "stack", "none"),
    ],
)
def test_a_changed_file_needs_no_more_than_its_own_part(plan: Plan, path: str, unit: str, needs: str) -> None:
    assert path in render(plan, STATE, ROOT)
    assert unit_of(path) == (unit, needs)


@pytest.fixture(scope="module")
def unchanged() -> tuple[Plan, dict[str, str]]:
    """A plan with every part, and Compose's hashes of its services."""
    made = given.plan(given.config(given.toy(replicas=2), device="cuda"))
    return made, service_hashes(render(made, STATE, ROOT))


@pytest.mark.parametrize(
    ("file", "other"),
    [
        ("grafana/provisioning/datasources/prometheus.yaml", {"grafana"}),
        ("grafana/dashboards/vllm-fleet.json", set()),
        ("compose/dcgm/counters.csv", {"dcgm-exporter"}),
    ],
)
def test_a_part_is_replaced_for_a_file_that_it_reads_only_when_it_starts(
    project: Path, unchanged: tuple[Plan, dict[str, str]], file: str, other: set[str]
) -> None:
    made, before = unchanged
    with (project / file).open("a") as opened:
        opened.write("\n")
    after = service_hashes(render(made, STATE, project))
    assert {name for name, digest in after.items() if before[name] != digest} == other
    assert {"grafana", "dcgm-exporter"} <= after.keys()


def test_no_api_key_is_in_any_rendered_byte_but_its_hash_is(tmp_path: Path) -> None:
    names = ["alice", "bob"]
    ensure_keys(tmp_path, names)
    made = given.plan(given.config(gateway={"api_keys": names}))
    tree = render(made, GatewayState(key_hashes(tmp_path, names)), ROOT)
    everything = b"\n".join(tree.values())
    for name in names:
        key = key_file(tmp_path, name).read_bytes().strip()
        assert key not in everything
        assert json.loads(tree["nginx/keys.json"])[hashlib.sha256(key).hexdigest()] == name


def test_nginx_shows_the_pair_it_is_told(plan: Plan) -> None:
    tree = render(plan, GatewayState(HASHES, certificate="0123456789abcdef"), ROOT)
    assert json.loads(tree["nginx/revision.json"])["certificate"] == "0123456789abcdef"
    named = re.findall(r"ssl_certificate(?:_key)? (\S+);", tree["nginx/conf.d/gateway.conf"].decode())
    assert named == ["/etc/nginx/tls/0123456789abcdef.crt", "/etc/nginx/tls/0123456789abcdef.key"]


def test_the_revision_that_nginx_tells_is_of_its_own_files_only(plan: Plan) -> None:
    def revision(made: Plan, hashes: dict[str, str], certificate: str = "a") -> str:
        tree = render(made, GatewayState(hashes, certificate=certificate), ROOT)
        return str(json.loads(tree["nginx/revision.json"])["revision"])

    first = revision(plan, HASHES)
    assert revision(plan, HASHES) == first
    assert revision(plan, HASHES, "b") != first
    assert revision(plan, {"0" * 64: "alice"}) != first
    assert revision(dataclasses.replace(plan, retention="1d"), HASHES) == first


def test_every_served_name_leads_to_a_pool_with_its_engines() -> None:
    made = given.plan(given.config(given.toy(replicas=2), given.toy(served_model_name="org/b.1")))
    tree = render(made, STATE, ROOT)
    pools = {pool.name: pool for pool in made.pools}
    leads = json.loads(tree["nginx/models.json"])
    assert {name: pools[lead["pool"]].served_model_name for name, lead in leads.items()} == {
        "toy": "toy",
        "org/b.1": "org/b.1",
    }
    blocks = tree["haproxy/haproxy.cfg"].decode().split("\nbackend ")[1:]
    lines = {block.split()[0]: [line.split()[1:3] for line in block.splitlines() if line.startswith("    server ")]
             for block in blocks}  # fmt: skip
    for name, pool in pools.items():
        assert lines[name] == [[engine, f"{engine}:8000"] for engine in pool.engines]
