"""What a plan is made from, gathered: hosts, images, and what an earlier run on this box has taken."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack import cordons
from stack.errors import InputError, StackError
from stack.hardware import Gpu, Host, save_hosts
from stack.inputs import Inputs, add_arguments, gather, remember
from unit import given
from unit.conftest import WriteStack

GPUS = given.gpus(4)
Gather = Callable[..., Inputs]


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[Gpu, ...]]]:
    """The idle and busy GPUs that this box is said to have."""
    has: dict[str, tuple[Gpu, ...]] = {"idle": GPUS, "busy": ()}
    monkeypatch.setattr("stack.which_hosts.find_gpus", lambda: (has["idle"], has["busy"]))
    yield has


@pytest.fixture
def gathered(write_stack: WriteStack, tmp_path: Path) -> Gather:
    """Gathers for a stack file whose state is in a scratch folder."""

    def call(
        *arguments: str, device: str = "cpu", more: str = "", source: str = "registry", replicas: int = 1
    ) -> Inputs:
        path = write_stack(
            f"device: {device}\nimages: {{source: {source}}}\npaths: {{state: {tmp_path}/state}}\n"
            f"models: [{{served_model_name: toy, source: {{toy: true}}, replicas: {replicas}}}]\n{more}"
        )
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return gather(parser.parse_args([str(path), *arguments]))

    return call


def taken(inputs: Inputs) -> list[str]:
    (plan,) = inputs.plans()
    return [uuid for engine in plan.engines for uuid in engine.gpus]


def uuids(gpus: tuple[Gpu, ...]) -> list[str]:
    return [gpu.uuid for gpu in gpus]


def test_gathering_changes_nothing(gathered: Gather, tmp_path: Path) -> None:
    inputs = gathered()
    inputs.render(inputs.plans()[0])
    assert [path.name for path in tmp_path.iterdir()] == ["stack.yaml"]


@pytest.mark.usefixtures("box")
def test_idle_gpus_are_taken_in_the_drivers_order(gathered: Gather) -> None:
    assert taken(gathered(device="cuda", replicas=2)) == uuids(GPUS[:2])


def test_busy_gpus_of_others_are_not_taken(gathered: Gather, box: dict[str, tuple[Gpu, ...]]) -> None:
    box.update(idle=GPUS[2:], busy=GPUS[:2])
    assert taken(gathered(device="cuda", replicas=2)) == uuids(GPUS[2:])


def test_the_gpus_of_a_running_stack_stay_its_own(gathered: Gather, box: dict[str, tuple[Gpu, ...]]) -> None:
    box.update(idle=GPUS[1:], busy=GPUS[:1])
    first = gathered(device="cuda", replicas=2)
    remember(first, first.plans()[0])
    box.update(idle=(GPUS[0], GPUS[3]), busy=GPUS[1:3])
    assert taken(gathered(device="cuda", replicas=2)) == taken(first) == uuids(GPUS[1:3])
    assert taken(gathered(device="cuda", replicas=3)) == [*taken(first), GPUS[0].uuid]


def test_only_the_gpus_that_are_used_are_remembered(gathered: Gather, box: dict[str, tuple[Gpu, ...]]) -> None:
    for replicas in (3, 1):
        inputs = gathered(device="cuda", replicas=replicas)
        remember(inputs, inputs.plans()[0])
    box.update(idle=GPUS[3:], busy=GPUS[:3])
    assert taken(gathered(device="cuda", replicas=2)) == [GPUS[0].uuid, GPUS[3].uuid]


def test_a_gpu_that_is_gone_is_an_error_that_says_how_to_go_on(
    gathered: Gather, box: dict[str, tuple[Gpu, ...]]
) -> None:
    inputs = gathered(device="cuda")
    remember(inputs, inputs.plans()[0])
    box.update(idle=GPUS[1:])
    with pytest.raises(StackError, match=f"{GPUS[0].uuid} is not in this box any more.*delete the file"):
        gathered(device="cuda")


def test_auto_in_a_file_of_ones_own_is_the_registry(gathered: Gather, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(host: str) -> bool:
        raise AssertionError(host)

    monkeypatch.setenv("STACK_BY_DEFAULT", "yes")
    monkeypatch.setattr("stack.images.source.registry_answers", nobody)
    inputs = gathered(source="auto")
    assert inputs.source == "registry"
    assert inputs.plans()[0].nginx_loads_modules is True
    assert gathered(source="build").plans()[0].nginx_loads_modules is False


def test_a_hosts_file_is_planned_for_each_of_its_hosts_or_one(gathered: Gather, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    save_hosts(file, (Host(name="node-a", gpus=GPUS[:2]), Host(name="node-b", gpus=GPUS[2:])))
    every = gathered("--hosts", str(file), device="cuda").plans()
    assert [(plan.host, plan.engines[0].gpus) for plan in every] == [
        ("node-a", (GPUS[0].uuid,)),
        ("node-b", (GPUS[2].uuid,)),
    ]
    (one,) = gathered("--hosts", str(file), "--host", "node-b", device="cuda").plans()
    assert one == every[1]
    with pytest.raises(InputError, match="no host 'node-c'; there are: node-a, node-b"):
        gathered("--hosts", str(file), "--host", "node-c", device="cuda")


def test_a_model_that_is_still_to_be_made_is_no_error_and_a_broken_one_is(gathered: Gather, tmp_path: Path) -> None:
    assert gathered().facts == {}
    (tmp_path / "state/models/toy-llama").mkdir(parents=True)
    with pytest.raises(InputError) as error:
        gathered()
    assert given.wheres(error.value) == ["models[0].source"]


def test_the_rendered_tree_knows_only_keys_that_exist(gathered: Gather) -> None:
    inputs = gathered()
    assert inputs.render(inputs.plans()[0])["nginx/keys.json"].strip() == b"{}"


def test_a_cordoned_gpu_keeps_its_place_even_where_the_driver_lost_it(
    gathered: Gather, box: dict[str, tuple[Gpu, ...]]
) -> None:
    first = gathered(device="cuda", replicas=3)
    remember(first, first.plans()[0])
    cordons.save(first.state, [GPUS[1].uuid])
    box.update(idle=(GPUS[0], GPUS[2], GPUS[3]))
    again = gathered(device="cuda", replicas=3)
    (plan,) = again.plans()
    assert [(engine.name, engine.gpus) for engine in plan.engines] == [
        ("engine-toy-0", (GPUS[0].uuid,)),
        ("engine-toy-2", (GPUS[2].uuid,)),
    ]
    assert [(engine.name, engine.gpus) for engine in plan.cordoned] == [("engine-toy-1", (GPUS[1].uuid,))]
    remember(again, plan)  # as every `make up` does
    cordons.save(first.state, [])
    box.update(idle=GPUS)
    assert taken(gathered(device="cuda", replicas=3)) == uuids(GPUS[:3])


@pytest.mark.usefixtures("box")
def test_a_free_gpu_that_is_cordoned_is_not_taken(gathered: Gather) -> None:
    first = gathered(device="cuda", replicas=1)
    remember(first, first.plans()[0])
    cordons.save(first.state, [GPUS[1].uuid])
    assert taken(gathered(device="cuda", replicas=2)) == [GPUS[0].uuid, GPUS[2].uuid]
