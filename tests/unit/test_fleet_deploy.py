"""A fleet's deploy on the controller: one release, trees from what the hosts say, the order of engines, refusals."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stack import drains, fleet_host, fleet_lock, fleet_prepare
from stack.config.folders import state_dir
from stack.config.load import load_config
from stack.deploy import fleet_deploy, host_state, release
from stack.deploy.fleet_state import merged
from stack.deploy.host_state import HostState
from stack.deploy.place import tree_of
from stack.deploy.running import RunningEngine
from stack.errors import InputError, StackError
from stack.gateway_state import GatewayState
from stack.images.archive import Archived, ArchiveList
from stack.inputs import ROOT
from stack.models.config_json import ModelFacts
from stack.plan.fleet import places_of
from stack.prepare import make_secrets
from stack.render import render
from stack.tree import write_tree
from stack.yaml_input import parsed
from unit import fake_docker, given
from unit.conftest import WriteStack
from unit.test_scripts import run

HOSTS = """
hosts:
  - {name: front, roles: [gateway, observability], address: 10.0.0.1}
  - {name: a, roles: [engines], address: 10.0.0.11}
  - {name: b, roles: [engines], address: 10.0.0.12}
"""
FRONT = given.host("front", 1, roles=["gateway", "observability"])
SERVING = (given.host("a", 11, roles=["engines"]), given.host("b", 12, roles=["engines"]))
FACTS = ModelFacts(8, "LlamaForCausalLM")
Commands = Callable[..., tuple[int, str, str]]


def deploys(told: dict[str, HostState], **model: Any) -> list[fleet_deploy.HostDeploy]:
    """Two toys on two hosts behind a third; Compose's hashes are made up: `new` for every engine."""
    plans = given.fleet(given.config(given.toy(**{"replicas": 2, **model})), FRONT, *SERVING)
    return [
        fleet_deploy.HostDeploy(
            plan, {"plan.json": "sum"}, {engine.name: "new" for engine in plan.engines}, told.get(name, HostState())
        )
        for name, plan in plans.items()
    ]


def told_of(hosts: list[fleet_deploy.HostDeploy]) -> dict[str, Any]:
    return fleet_deploy.told_of(hosts, fleet_deploy.batches_of(hosts))


def runs(version: str, port: int = 18000) -> RunningEngine:
    return RunningEngine(version, (), (port,), serving=True)


def test_a_first_deploy_starts_all_engines() -> None:
    told = told_of(deploys({}))
    assert [[(step["action"], step["host"]) for step in batch] for batch in told["batches"]] == [
        [("start", "a"), ("start", "b")]
    ]
    assert told["hosts"]["front"] == {
        "roles": ["gateway", "observability"], "effects": {}, "retired": [], "running": False,
    }  # fmt: skip
    assert all(step["seconds"] > 600 for step in told["batches"][0])


def test_a_changed_flag_is_one_replica_after_the_other_and_a_single_one_is_refused_with_its_gap() -> None:
    both = {
        "a": HostState(engines={"engine-toy-0": runs("old")}, start_seconds={"engine-toy-0": 42.0}),
        "b": HostState(engines={"engine-toy-1": runs("old")}),
    }
    batches = fleet_deploy.batches_of(deploys(both))
    assert [[(step.action, step.short) for step in batch] for batch in batches] == [[("replace", False)]] * 2
    fleet_deploy.refuse_downtime(batches, "stack.yaml")
    with pytest.raises(InputError, match="only 1 of the 2 replicas that max_unavailable leaves"):
        fleet_deploy.refuse_downtime(fleet_deploy.batches_of(deploys(both, max_unavailable=0)), "stack.yaml")
    alone = {"a": both["a"], "front": HostState(gateway=GatewayState(drained=frozenset({"engine-toy-1"})))}
    with pytest.raises(InputError, match=r"engine-toy-0 on host 'a' has to be replaced.* 42 s"):
        fleet_deploy.refuse_downtime(fleet_deploy.batches_of(deploys(alone)), "stack.yaml")


def test_what_hosts_say_for_a_rollback_makes_the_same_order(
    stack: Path, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "front": HostState(gateway=GatewayState(drained=frozenset({"engine-toy-1"})), live={"plan.json": "x"}),
        "a": HostState(engines={"engine-toy-0": runs("old")}, start_seconds={"engine-toy-0": 42.0}),
        "b": HostState(engines={"engine-toy-1": runs("new"), "engine-old-0": runs("x", 18007)}),
    }
    hosts = deploys(told)
    said = json.dumps([fleet_deploy.as_told(host) for host in reversed(hosts)])

    def steps(text: str, *more: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return commands("fleet_steps.py", str(stack), "--hosts", str(tmp_path / "hosts.yaml"), *more)

    code, out, err = steps(said)
    assert (code, "no answers for about 42 s" in err) == (2, True)
    code, out, err = steps(said, "--look")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(json.dumps(told_of(hosts)))
    code, _, err = steps(json.dumps(json.loads(said)[1:]), "--look")
    assert code == 2
    assert "only one of the two has b" in err


def test_an_engine_without_a_place_is_stopped_last() -> None:
    told = {"a": HostState(engines={"engine-toy-0": runs("new"), "engine-old-0": runs("x", 18007)})}
    summary = told_of(deploys(told))
    assert summary["hosts"]["a"]["retired"] == ["engine-old-0"]
    assert [[step["engine"] for step in batch] for batch in summary["batches"]] == [["engine-toy-1"]]


def test_places_that_are_not_written_down_are_refused() -> None:
    plans = [host.plan for host in deploys({})]
    places = places_of(plans)
    fleet_deploy.refuse_other_places(plans, places, "hosts.lock")
    moved = {**places, "engine-toy-1": replace(places["engine-toy-1"], host="a")}
    for wrong in ({}, moved, {**places, "engine-gone-0": places["engine-toy-0"]}):
        with pytest.raises(InputError, match="make place"):
            fleet_deploy.refuse_other_places(plans, wrong, "hosts.lock")


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        (HostState(facts={"m": FACTS}), HostState(facts={"m": FACTS}), None),
        (HostState(facts={"m": FACTS}), HostState(), None),
        (HostState(facts={"m": FACTS}), HostState(facts={"m": replace(FACTS, weights_bytes=1)}), "m on host 'b'"),
        (HostState(gateway=GatewayState(engine_keys="x")), HostState(gateway=GatewayState(engine_keys="y")), "key"),
        (HostState(gateway=GatewayState(certificate="x")), HostState(gateway=GatewayState(certificate="y")), "two"),
    ],
)
def test_what_hosts_say_is_put_together_where_they_agree(one: HostState, other: HostState, problem: str | None) -> None:
    if problem:
        with pytest.raises(InputError, match=problem):
            merged({"a": one, "b": other}, "stack.yaml")
    else:
        assert merged({"a": one, "b": other}, "stack.yaml").facts == {"m": FACTS}


def test_cordons_of_all_hosts_count() -> None:
    found = merged({"a": HostState(cordoned=frozenset({"x"})), "b": HostState(cordoned=frozenset({"y"}))}, "s")
    assert found.cordoned == {"x", "y"}


@pytest.fixture
def stack(write_stack: WriteStack, tmp_path: Path) -> Path:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    return write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {toy: true}, replicas: 2}]\nimages: {source: build}\n"
    )


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    def call(*arguments: str) -> tuple[int, str, str]:
        return run(monkeypatch, capsys, *arguments)

    return call


def released(stack: Path, folder: Path) -> Path:
    """The release of a fleet, as the hosts and the controller have it."""
    files = release.files_of(ROOT, stack, folder / "hosts.yaml", None, str(folder / "state"))
    release.write(files, folder / "release")
    return folder / "release"


def test_all_hosts_of_a_fleet_have_one_release_with_their_places(
    stack: Path, tmp_path: Path, commands: Commands
) -> None:
    assert commands("place.py", str(stack), "--hosts", str(tmp_path / "hosts.yaml"))[0] == 0
    folder = released(stack, tmp_path)
    assert [host["name"] for host in parsed((folder / "hosts.yaml").read_text())["hosts"]] == [
        "front",
        "a",
        "b",
    ]
    assert fleet_lock.load(folder / "hosts.lock").keys() == {"engine-toy-0", "engine-toy-1"}
    (tmp_path / "hosts.yaml").write_text("hosts: [{name: a}]\n")
    with pytest.raises(InputError, match=r"docs/fleet\.md"):
        released(stack, tmp_path)


def test_trees_are_rendered_where_every_engine_has_its_place_written_down(
    stack: Path, tmp_path: Path, commands: Commands
) -> None:
    def rendered(*more: str) -> tuple[int, str, str]:
        folder = released(stack, tmp_path)
        told, trees, lock = (str(tmp_path / name) for name in ("told", "trees", "hosts.lock"))
        arguments = ["--hosts", str(folder / "hosts.yaml"), "--facts", told, "--output", trees, "--lock", lock]
        return commands("render_fleet.py", str(folder / "stack.yaml"), *arguments, *more)

    code, _, err = rendered()
    assert (code, "make place" in err) == (2, True)
    code, _, err = rendered("--place")
    assert (code, "deploy again" in err) == (2, True)
    code, out, err = rendered()
    assert code == 0, err
    assert [[step["action"] for step in batch] for batch in json.loads(out)["batches"]] == [["start", "start"]]
    tree = json.loads((tmp_path / "trees/front.json").read_text())
    assert "haproxy/haproxy.cfg" in tree["files"]
    assert tree["effects"]["haproxy"] == "create"


def test_each_host_renders_the_tree_that_it_was_sent_and_no_other(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = released(stack, tmp_path)
    config = load_config(folder / "stack.yaml")
    state = state_dir(config, ROOT)
    state.mkdir(parents=True)
    make_secrets(config, state)
    drains.save(state, ["engine-toy-1"])
    monkeypatch.setattr("stack.deploy.host_state.service_hashes", lambda files: {})
    monkeypatch.setattr("stack.fleet_host.connect", fake_docker.engine)
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(host_state.tell(config, "front", ROOT, "s", fake_docker.engine())))
    told = host_state.load(facts, config)
    drains.save_replacing(state, ["engine-toy-0"])  # an engine that a deploy has out is no part of a tree
    plans = given.fleet(given.config(given.toy(replicas=2), paths={"state": str(tmp_path / "state")}), FRONT, *SERVING)
    shipped = tmp_path / "shipped"
    write_tree(shipped, render(fleet_deploy.as_sent(plans["front"]), told.gateway, ROOT))
    arguments = argparse.Namespace(
        stack=folder / "stack.yaml", hosts=folder / "hosts.yaml", host="front", shipped=shipped, facts=None, again=False
    )  # fmt: skip
    inputs, plan, _ = fleet_host.begin(arguments)
    assert plan.as_dict()["fleet"] == plans["front"].as_dict()["fleet"]
    assert (
        b"engine-toy-1 10.0.0.12:18000 disabled" in fleet_prepare.rendered(inputs, plan, shipped)["haproxy/haproxy.cfg"]
    )
    # what is kept of a release is rendered with the drained replicas of now; nothing was sent for it
    arguments.again = True
    with pytest.raises(InputError, match="was not kept of this release"):
        fleet_host.begin(arguments)
    write_tree(tree_of(state, ROOT.name), {**render(fleet_deploy.as_sent(plans["front"]), GatewayState(), ROOT)})
    kept, again, _ = fleet_host.begin(arguments)
    assert fleet_prepare.rendered_now(kept, again) == fleet_prepare.rendered(inputs, plan, shipped)
    arguments.again = False
    drains.save(state, [])
    with pytest.raises(StackError, match="is not what this host renders now"):
        fleet_prepare.rendered(inputs, plan, shipped)
    arguments.host = "a"
    with pytest.raises(InputError, match="it is of host 'front'"):
        fleet_host.begin(arguments)


def test_archives_have_to_be_the_same() -> None:
    lists = [
        ArchiveList(built=True, images={"vllm": Archived(name="v", id=f"sha256:{n * 64}", digest=None, size=1)})
        for n in "ab"
    ]
    told = {name: HostState(archive=one) for name, one in zip("ab", lists, strict=True)}
    with pytest.raises(InputError, match=r"images\.archive"):
        merged(told, "stack.yaml")
