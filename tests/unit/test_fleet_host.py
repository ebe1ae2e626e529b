"""What a host of a fleet notes while its engines change, and records once its tree is proven."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stack import fleet_host, fleet_told
from stack.deploy import fleet_deploy, records
from stack.deploy.activation import Activation
from stack.deploy.place import ReleasePlace, tree_of
from stack.deploy.records import Made
from stack.errors import StackError
from stack.inputs import ROOT
from stack.plan.types import Plan
from stack.render import manifest
from stack.tree import write_tree
from unit import fake_docker, given
from unit.conftest import WriteStack
from unit.test_fleet_deploy import FRONT, HOSTS, SERVING

MADE = Made(commit="c" * 40, dirty=False, who="alice", when="2026-01-01T00:00:00Z", common="0" * 16)
Call = Callable[..., argparse.Namespace]


def tree(plan: Plan) -> dict[str, bytes]:
    files = {"plan.json": json.dumps(plan.as_dict()).encode()}
    return {**files, "manifest.json": manifest(files)}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    stack = given.config(given.toy(replicas=2), paths={"state": str(tmp_path / "state")})
    return given.fleet(stack, FRONT, *SERVING)["a"]


@pytest.fixture
def place(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleasePlace:
    """Where the host keeps releases: this program is one of them."""
    found = ReleasePlace(tmp_path / "opt", Path(plan.state_dir))
    (found.releases / ROOT.name).mkdir(parents=True)
    monkeypatch.setattr(fleet_host, "place_here", lambda state: found)
    monkeypatch.setattr(fleet_host, "connect", fake_docker.engine)
    write_tree(found.state / "shipped", tree(plan))
    return found


@pytest.fixture
def call(place: ReleasePlace, write_stack: WriteStack, tmp_path: Path) -> Call:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    stack = write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {toy: true}, replicas: 2},"
        " {served_model_name: other, source: {toy: true}, replicas: 1}]\n"
        f"images: {{source: build}}\npaths: {{state: {tmp_path}/state}}\n"
    )

    def arguments(**more: Any) -> argparse.Namespace:
        known = {"stack": stack, "hosts": tmp_path / "hosts.yaml", "host": "a", "shipped": place.state / "shipped",
                 "facts": None, "kept": None, "again": False, "wait": 0}  # fmt: skip
        return argparse.Namespace(**{**known, **more})

    return arguments


def test_an_engine_that_is_replaced_leaves_a_note_and_one_that_fails_none(
    plan: Plan, place: ReleasePlace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_host, "rendered", lambda *_: tree(plan))

    def fails(*_: object) -> str:
        assert place.cut_off() == ROOT.name
        raise StackError("it was put back")

    monkeypatch.setattr(fleet_host, "renew_one", fails)
    with pytest.raises(StackError, match="put back"):
        fleet_host.act(call(action="replace", engine="engine-toy-0"))
    assert place.cut_off() is None
    write_tree(place.state / "shipped", tree(plan))  # nothing ran, so nothing is sent any more either
    monkeypatch.setattr(fleet_host, "renew_one", lambda *_: "replaced engine-toy-0")
    assert fleet_host.act(call(action="replace", engine="engine-toy-0")) == ["replaced engine-toy-0"]
    assert (place.cut_off(), place.running()) == (ROOT.name, None)


def test_a_tree_that_is_proven_is_recorded_with_the_models_that_are_served_here(
    plan: Plan, place: ReleasePlace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_host, "prepare", lambda *_, kept: tree(plan))
    monkeypatch.setattr(fleet_host, "to_replace", lambda *_: [])
    monkeypatch.setattr(fleet_host, "apply_and_prove", lambda *_: ["started node-exporter"])
    monkeypatch.setattr("stack.deploy.needs.image_id", lambda reference, _: "sha256:1")
    for name in ("drop_what_is_over", "kept_certificate"):
        monkeypatch.setattr(fleet_host, name, lambda *_: None)
    activation = Activation(place, ROOT.name, MADE, "deploy", "alice", None)
    assert fleet_host.up(call(), activation)[1] == ["started node-exporter"]
    assert (place.running(), place.cut_off()) == (ROOT.name, None)
    (record,) = records.load_all(place.releases)
    assert [Path(folder).name for folder in record.models] == [Path(plan.engines[0].model_dir).name]
    assert (tree_of(place.state, ROOT.name) / "plan.json").is_file()

    def broken(*_: object) -> list[str]:
        raise StackError("a check failed")

    monkeypatch.setattr(fleet_host, "apply_and_prove", broken)
    with pytest.raises(StackError, match="a check failed"):
        fleet_host.up(call(kept=place.record(ROOT.name)), activation)
    assert place.cut_off() is None


def test_what_a_release_wants_of_a_host_is_told_from_what_is_kept_of_it(
    plan: Plan, place: ReleasePlace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tree_of(place.state, ROOT.name), tree(plan))
    write_tree(place.state / "live", tree(plan))
    monkeypatch.setattr(fleet_told, "service_hashes", lambda files: dict.fromkeys(["engine-toy-0"], "hash"))
    told = json.loads(json.dumps(fleet_told.tell(call(again=True, shipped=Path("none")))))
    host = fleet_deploy.from_told(told["deploy"])
    assert host.plan == fleet_deploy.as_sent(plan)
    assert [[step.action for step in batch] for batch in fleet_deploy.batches_of([host])] == [["start"]]
    assert list(told["files"]) == ["host/nftables/vllm-onprem.nft"]
    assert told["release"] == {"id": ROOT.name, "name": plan.project, "state": str(place.state), "mounts": []}
