"""A cordoned GPU: its replicas are not run, and nothing else about the others changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack import cordons
from stack.day2 import cordon
from stack.day2.cordon import tree_after
from stack.drains import save as save_drained
from stack.errors import InputError, StackError
from stack.gateway_state import GatewayState
from stack.inputs import Place
from stack.plan.types import Plan, plan_from
from stack.render import manifest, render
from stack.summary import plan_table
from stack.tree import compare, write_tree
from stack.yaml_input import parsed
from stacks import EIGHT_GPUS, ROOT
from unit import fake_docker, given

MODELS = (given.toy(replicas=2, tensor_parallel_size=2), given.toy(served_model_name="other", replicas=3))
UUIDS = [gpu.uuid for gpu in EIGHT_GPUS.gpus]


@pytest.fixture
def plan() -> Plan:
    """Two replicas of two GPUs, three of one, one GPU free."""
    return given.plan(given.config(*MODELS, device="cuda"))


def names(plan: Plan) -> list[str]:
    return [engine.name for engine in plan.engines]


@pytest.mark.parametrize(
    ("gpu", "gone"), [(0, "engine-toy-0"), (3, "engine-toy-1"), (4, "engine-other-0"), (5, "engine-other-1")]
)
def test_only_the_replica_on_the_gpu_is_not_run_and_every_other_keeps_name_and_gpus(
    plan: Plan, gpu: int, gone: str
) -> None:
    without = cordons.without_gpus(plan, {UUIDS[gpu]})
    assert names(without) == [name for name in names(plan) if name != gone]
    assert [engine.name for engine in without.cordoned] == [gone]
    assert all(engine in plan.engines for engine in without.engines)
    assert without.pools == plan.pools
    assert {target.address for target in plan.targets} - {target.address for target in without.targets} == {
        f"{gone}:8000", f"http://{gone}:8000/v1/completions"
    }  # fmt: skip


def test_a_free_gpu_is_cordoned_without_a_change(plan: Plan) -> None:
    assert cordons.without_gpus(plan, {UUIDS[7]}) == plan


def test_taken_back_it_is_the_plan_of_before(plan: Plan) -> None:
    out = cordons.without_gpus(plan, UUIDS[:3])
    assert names(out) == ["engine-other-0", "engine-other-1", "engine-other-2"]
    assert cordons.without_gpus(out, {UUIDS[0]}).cordoned == plan.engines[:1]
    assert cordons.without_gpus(out, ()) == plan
    read_back = plan_from(json.loads(json.dumps(out.as_dict())))
    assert json.dumps(cordons.without_gpus(read_back, ()).as_dict()) == json.dumps(plan.as_dict())


def test_no_other_service_of_the_rendered_stack_differs(plan: Plan) -> None:
    before, after = (
        render(plan, GatewayState(), ROOT),
        render(cordons.without_gpus(plan, {UUIDS[5]}), GatewayState(), ROOT),
    )
    services = [parsed(files["compose.yaml"])["services"] for files in (before, after)]
    assert services[0].keys() - services[1].keys() == {"engine-other-1"}
    assert services[1] == {name: service for name, service in services[0].items() if name != "engine-other-1"}
    assert {change.path for change in compare(before, after)} == {
        "compose.yaml", "plan.json", "haproxy/haproxy.cfg", "prometheus/targets/vllm.json",
        "prometheus/targets/probe_replica.json", "prometheus/rules/monitoring.yaml", "prometheus/rules/gpu.yaml",
    }  # fmt: skip


def test_haproxy_keeps_its_line_so_that_affinity_is_not_shuffled(plan: Plan) -> None:
    after = render(cordons.without_gpus(plan, {UUIDS[5]}), GatewayState(), ROOT)["haproxy/haproxy.cfg"].decode()
    servers = [line.split() for line in after.splitlines() if line.strip().startswith("server engine-other")]
    assert [words[1:] for words in servers] == [
        ["engine-other-0", "engine-other-0:8000"],
        ["engine-other-1", "127.0.0.1:1", "disabled"],  # a name without a container would keep a reload waiting
        ["engine-other-2", "engine-other-2:8000"],
    ]


def test_the_plan_says_what_is_cordoned_even_where_nothing_is_left(plan: Plan) -> None:
    told = plan_table(cordons.without_gpus(plan, UUIDS).as_dict())
    for name in names(plan):
        assert f"cordoned, not run: {name} on GPU-" in told


def test_a_damaged_list_is_told(tmp_path: Path) -> None:
    assert cordons.cordoned(tmp_path) == frozenset()
    cordons.save(tmp_path, UUIDS[:2])
    assert cordons.cordoned(tmp_path) == frozenset(UUIDS[:2])
    (tmp_path / "cordoned.json").write_text("{")
    with pytest.raises(StackError, match="damaged"):
        cordons.cordoned(tmp_path)


class Applied:
    """A stack as applied in a scratch folder, whose engines all run."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = replace(plan, state_dir=str(folder))
        self.place = Place(plan.project, folder)
        self.files = render(self.plan, GatewayState(), ROOT)
        write_tree(self.place.live, self.files)
        self.client = fake_docker.engine(*(fake_docker.container(name, health="healthy") for name in names(plan)))

    def cordon(self, gpu: str, *, gap: bool = False) -> Any:
        return cordon.cordon(self.place, gpu, ROOT, self.client, gap=gap, timeout=0)


@pytest.fixture
def applied(plan: Plan, tmp_path: Path) -> Applied:
    return Applied(plan, tmp_path)


def changed_to(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Plans that cordon() would change to."""
    asked: list[Plan] = []

    def note(_place: Place, _plan: Plan, after: Plan, *_: object) -> cordon.Outcome:
        asked.append(after)
        return cordon.Outcome((), ())

    monkeypatch.setattr(cordon, "change", note)
    return asked


def test_cordoning_is_remembered_and_adds_up(applied: Applied, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = changed_to(monkeypatch)
    applied.cordon(UUIDS[0])
    applied.cordon(UUIDS[4])
    assert cordons.cordoned(applied.place.state) == {UUIDS[0], UUIDS[4]}
    assert [[engine.name for engine in plan.cordoned] for plan in asked] == [
        ["engine-toy-0"], ["engine-toy-0", "engine-other-0"]
    ]  # fmt: skip


def test_a_gpu_that_is_not_the_stacks_is_refused_with_those_that_are(applied: Applied) -> None:
    with pytest.raises(InputError, match=rf"{UUIDS[0]} \(engine-toy-0\).*{UUIDS[7]} \(free\)"):
        applied.cordon("GPU-ffffffff")
    assert cordons.cordoned(applied.place.state) == frozenset()


def test_the_last_replica_of_a_model_is_only_cordoned_when_a_person_wants_the_gap(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_to(monkeypatch)
    save_drained(applied.place.state, ["engine-toy-1"])
    with pytest.raises(InputError, match="toy: no other replica serves it; with ALLOW_DOWNTIME=1"):
        applied.cordon(UUIDS[1])
    assert cordons.cordoned(applied.place.state) == frozenset()
    applied.cordon(UUIDS[1], gap=True)
    assert cordons.cordoned(applied.place.state) == {UUIDS[1]}


def test_what_fails_to_come_back_stays_cordoned(applied: Applied, monkeypatch: pytest.MonkeyPatch) -> None:
    cordons.save(applied.place.state, UUIDS[:1])

    def fail(*_: object) -> None:
        raise StackError("it does not start")

    monkeypatch.setattr(cordon, "change", fail)
    with pytest.raises(StackError, match="does not start"):
        cordon.uncordon(applied.place, UUIDS[0], ROOT, applied.client)
    assert cordons.cordoned(applied.place.state) == {UUIDS[0]}
    with pytest.raises(InputError, match="not cordoned"):
        cordon.uncordon(applied.place, UUIDS[1], ROOT, applied.client)


def test_a_newer_checkout_changes_no_other_service(applied: Applied) -> None:
    """The applied Compose file is of another version than the templates: only the one service goes, and comes back."""
    document = parsed(applied.files["compose.yaml"])
    document["services"]["engine-other-0"]["environment"]["OF_ANOTHER_VERSION"] = "1"
    older = {**applied.files, "compose.yaml": yaml.safe_dump(document).encode()}
    older["manifest.json"] = manifest(older)
    without = cordons.without_gpus(applied.plan, {UUIDS[5]})
    after = tree_after(older, applied.plan, without, applied.place.state, ROOT)
    services = parsed(after["compose.yaml"])["services"]
    wanted = {name: service for name, service in document["services"].items() if name != "engine-other-1"}
    assert services == wanted
    again = tree_after(after, without, applied.plan, applied.place.state, ROOT)
    assert parsed(again["compose.yaml"])["services"].keys() == document["services"].keys()
    assert parsed(again["compose.yaml"])["services"]["engine-other-0"] == document["services"]["engine-other-0"]
