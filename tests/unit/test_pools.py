"""Replicas out of the pools of a gateway host and back, one engine of a host replaced; with stand-ins for Docker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stack import drains, pools, replica
from stack.deploy.running import running_engines
from stack.docker_host import HASH_LABEL
from stack.errors import InputError, StackError
from stack.inputs import Place
from stack.plan.types import Plan
from stack.render import MANIFEST, manifest
from stack.tree import read_tree, write_tree
from unit import fake_docker, given

FRONT = given.host("front", 1, roles=["gateway"])
WATCHING = given.host("watching", 2, roles=["observability"])
SERVING = (given.host("a", 11, roles=["engines"]), given.host("b", 12, roles=["engines"]))
PLANS = given.fleet(given.config(given.toy(replicas=2)), FRONT, WATCHING, *SERVING)
ZERO, ONE = "engine-toy-0", "engine-toy-1"


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A gateway host whose HAProxys send requests to both replicas, which answer."""
    monkeypatch.setattr("stack.pools.in_pools", lambda *_: {ZERO, ONE})
    monkeypatch.setattr("stack.adjust.adjust", lambda *_: ["haproxy"])
    monkeypatch.setattr("stack.pools.ask_at", lambda *_: "8 tokens")
    return applied("front", tmp_path)


@pytest.fixture
def silenced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Alertmanager was asked for."""
    asked: list[str] = []
    monkeypatch.setattr("stack.pools.silences.silence", lambda _, name, seconds, why: asked.append(f"{name} {seconds}"))
    monkeypatch.setattr("stack.pools.silences.end", lambda _, name: asked.append(f"{name} ends"))
    return asked


def applied(host: str, state: Path) -> Place:
    (state / "live").mkdir()
    (state / "live/plan.json").write_text(json.dumps(PLANS[host].as_dict()))
    return Place("vllm-onprem", state)


def take_out(gateway: Place, *names: str, least: int = 1) -> list[str]:
    return pools.take_out(gateway, dict.fromkeys(names, least), fake_docker.engine())


def test_a_replica_is_out_and_nobody_alerted_until_it_is_put_back(gateway: Place, silenced: list[str]) -> None:
    assert take_out(gateway, ZERO) == [ZERO]
    assert drains.replacing(gateway.state) == {ZERO}
    assert drains.drained(gateway.state) == frozenset()  # no person decided it
    assert pools.put_back(gateway, [ZERO], fake_docker.engine()) == ([ZERO], {})
    assert drains.replacing(gateway.state) == frozenset()
    assert silenced == [f"{ZERO} 3600", f"{ZERO} ends"]


def test_one_that_this_gateway_does_not_know_is_nothing_to_do(gateway: Place) -> None:
    assert take_out(gateway, "engine-new-0") == []
    assert pools.put_back(gateway, ["engine-new-0"], fake_docker.engine()) == ([], {})


def test_a_host_without_a_gateway_only_tells_alertmanager(
    tmp_path: Path, silenced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.pools.ask_at", lambda *_: pytest.fail("no pool is here"))
    watching = applied("watching", tmp_path)
    assert take_out(watching, ZERO) == []
    assert pools.put_back(watching, [ZERO], fake_docker.engine()) == ([], {})
    assert not (watching.state / "replacing.json").exists()
    assert silenced == [f"{ZERO} 3600", f"{ZERO} ends"]


@pytest.mark.parametrize("other", ["drained", "replacing", "down", "leaving too"])
def test_the_last_that_serves_is_not_taken_out(other: str, gateway: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = [ZERO]
    if other == "drained":
        drains.save(gateway.state, [ONE])
    elif other == "replacing":
        drains.save_replacing(gateway.state, [ONE])
    elif other == "down":
        monkeypatch.setattr("stack.pools.in_pools", lambda *_: {ZERO})
    else:
        leaving.append(ONE)
    with pytest.raises(InputError, match="no other replica serves toy"):
        take_out(gateway, *leaving)
    assert ZERO not in drains.replacing(gateway.state)
    monkeypatch.setenv("ALLOW_DOWNTIME", "1")
    assert take_out(gateway, *leaving) == leaving


def test_fewer_than_shall_serve_are_not_left_and_one_that_serves_nobody_may_go(
    gateway: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"1 other\(s\) serve toy now, .* and at least 2 shall"):
        take_out(gateway, ZERO, least=2)
    monkeypatch.setattr("stack.pools.in_pools", lambda *_: set())
    assert take_out(gateway, ZERO, least=2) == [ZERO]


def test_one_that_does_not_answer_this_gateway_stays_out_and_the_other_comes_back(
    gateway: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(where: str, *_: object) -> str:
        if where.startswith("10.0.0.11:"):
            raise LookupError(f"nobody at {where}")
        return "8 tokens"

    drains.save_replacing(gateway.state, [ZERO, ONE])
    monkeypatch.setattr("stack.pools.ask_at", refuse)
    back, out = pools.put_back(gateway, [ZERO, ONE], fake_docker.engine())
    assert back == [ONE]
    assert "does not answer this gateway at 10.0.0.11:18000" in out[ZERO]
    assert drains.replacing(gateway.state) == {ZERO}


def test_what_a_deploy_has_left_out_is_put_back_by_the_next(gateway: Place) -> None:
    drains.save_replacing(gateway.state, [ZERO])
    assert pools.put_back(gateway, [], fake_docker.engine()) == ([ZERO], {})
    assert drains.replacing(gateway.state) == frozenset()


def tree(version: str, **more: str) -> dict[str, bytes]:
    """The files of a host of engines; of another version another flag and other files of its other parts."""
    plan = {"project": "vllm-onprem", "engines": PLANS["a"].as_dict()["engines"], "version": version}
    files = {"compose.yaml": version, "nginx/nginx.conf": version, "plan.json": json.dumps(plan), **more}
    encoded = {path: text.encode() for path, text in files.items()}
    return {**encoded, MANIFEST: manifest(encoded)}


class Engines:
    """Docker and Compose of one host: an engine is what the written compose.yaml says when it is renewed."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live, self.runs, self.broken = state / "live", dict[str, str](), set[str]()
        self.renewed: list[str] = []
        monkeypatch.setattr("stack.replica.containers", lambda *_: {n: self.part(n) for n in self.runs})
        monkeypatch.setattr(
            "stack.replica.service_hashes",
            lambda files: dict.fromkeys((ZERO, ONE), files["compose.yaml"].decode()),
        )
        monkeypatch.setattr("stack.replica.finish_requests", lambda *_: None)
        monkeypatch.setattr("stack.replica.renew", self.renew)

    def part(self, name: str) -> Any:
        part: Any = fake_docker.container(name)
        part.labels[HASH_LABEL] = self.runs[name]
        part.stop = lambda timeout: None
        part.remove = lambda: self.runs.pop(name)
        return part

    def renew(self, live: Path, plan: dict[str, Any], engine: dict[str, Any], *_: object) -> None:
        version = read_tree(live)["compose.yaml"].decode()
        self.runs[engine["name"]] = version
        self.renewed.append(f"{engine['name']} {version}")
        if version in self.broken:
            raise StackError(f"{engine['name']} is not ready")


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    return Engines(tmp_path, monkeypatch)


Renew = Callable[[str, dict[str, bytes]], str]


@pytest.fixture
def renew(tmp_path: Path) -> Renew:
    def call(name: str, files: dict[str, bytes]) -> str:
        plan = Plan(**{**vars(PLANS["a"]), "engines": (PLANS["a"].engines[0], PLANS["b"].engines[0])})
        return replica.renew_one(plan, tmp_path, files, name, fake_docker.engine())

    return call


def test_a_first_engine_brings_the_whole_tree(engines: Engines, renew: Renew) -> None:
    assert renew(ZERO, tree("new")) == f"started {ZERO}"
    assert read_tree(engines.live) == tree("new")


def test_engines_get_their_files_and_other_parts_keep_theirs_until_their_turn(engines: Engines, renew: Renew) -> None:
    write_tree(engines.live, tree("old"))
    engines.runs = {ZERO: "old", ONE: "old"}
    assert renew(ZERO, tree("new")) == f"replaced {ZERO}"
    found = read_tree(engines.live)
    assert (found["compose.yaml"], found["nginx/nginx.conf"]) == (b"new", b"old")
    assert json.loads(found["plan.json"])["version"] == "old"
    assert engines.runs == {ZERO: "new", ONE: "old"}


def test_the_second_engine_that_fails_is_put_back_as_it_was_and_the_first_stays(engines: Engines, renew: Renew) -> None:
    write_tree(engines.live, tree("old"))
    engines.runs = {ZERO: "old", ONE: "old"}
    renew(ZERO, tree("new"))
    engines.broken = {"worse"}
    with pytest.raises(StackError, match=f"{ONE} was put back as it was before and answers"):
        renew(ONE, tree("worse"))
    assert engines.runs == {ZERO: "new", ONE: "old"}
    assert read_tree(engines.live) == tree("old")


def test_one_that_did_not_run_is_stopped_again(engines: Engines, renew: Renew) -> None:
    write_tree(engines.live, tree("old"))
    engines.runs, engines.broken = {ZERO: "old"}, {"new"}
    with pytest.raises(StackError, match="did not run before, so it is stopped again"):
        renew(ONE, tree("new"))
    assert engines.runs == {ZERO: "old"}
    assert read_tree(engines.live) == tree("old")


def test_one_whose_files_are_gone_is_told_as_such(engines: Engines, renew: Renew) -> None:
    write_tree(engines.live, tree("old"))
    engines.runs, engines.broken = {ZERO: "of long ago"}, {"new"}
    with pytest.raises(StackError, match="could NOT be put back"):
        renew(ZERO, tree("new"))


def test_a_part_that_was_stopped_for_another_is_put_back_as_it_was(engines: Engines, tmp_path: Path) -> None:
    write_tree(engines.live, tree("old"))
    engines.runs = {ZERO: "old"}
    replica.keep(tmp_path, tree("old"))
    replica.stop_one(PLANS["a"], ZERO, fake_docker.engine())
    write_tree(engines.live, replica.engines_part(tree("old"), tree("new")))
    assert replica.put_back_one(PLANS["a"], tmp_path, ZERO, fake_docker.engine()) == f"{ZERO} is as it was before"
    assert engines.runs == {ZERO: "old"}
    assert read_tree(engines.live) == tree("old")


def test_a_part_that_this_deploy_has_added_is_stopped_again(engines: Engines, tmp_path: Path) -> None:
    write_tree(engines.live, tree("old"))
    replica.keep(tmp_path, tree("old"))
    engines.runs = {"engine-new-0.1": "new"}
    told = replica.put_back_one(PLANS["a"], tmp_path, "engine-new-0.1", fake_docker.engine())
    assert told == "stopped engine-new-0.1"
    assert engines.runs == {}


def test_what_runs_is_told_by_its_container() -> None:
    part = fake_docker.container(ZERO, health="healthy", ports={"10.0.0.11": 18000}, gpus=("GPU-1",))
    part.labels[HASH_LABEL] = "abc"
    others = (fake_docker.container("nginx"), fake_docker.container(ONE, status="exited"))
    assert running_engines("vllm-onprem", fake_docker.engine(part, *others)) == {
        ZERO: {"hash": "abc", "gpus": ("GPU-1",), "ports": (18000,), "serving": True}
    }
