"""Where the engines of a fleet run: evenly, within the GPUs there are, and nothing moves that need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from stack.config.schema import StackConfig
from stack.errors import InputError
from stack.hardware import Host
from stack.plan.fleet import places_of
from stack.plan.fleet_ports import ENGINE_PORTS
from stack.plan.places import EnginePlace
from unit import given

FRONT = given.host("front", 1, roles=["gateway", "observability"])
SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=6)
# (replicas, GPUs of one engine) of each model
MODELS = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 4])), min_size=1, max_size=4)
QUICK = settings(max_examples=60, deadline=None)


def hosts_of(sizes: list[int]) -> list[Host]:
    return [given.host(f"gpu-{n}", 10 + n, size, roles=["engines"]) for n, size in enumerate(sizes)]


def stack(models: list[tuple[int, int]], **keys: Any) -> StackConfig:
    toys = [
        given.toy(served_model_name=f"m{n}", replicas=replicas, tensor_parallel_size=size)
        for n, (replicas, size) in enumerate(models)
    ]
    return given.config(*toys, device="cuda", **keys)


def places(
    config: StackConfig, hosts: list[Host], previous: Mapping[str, EnginePlace] | None = None
) -> dict[str, EnginePlace]:
    return places_of(list(given.fleet(config, FRONT, *hosts, previous=previous).values()))


def placed(models: list[tuple[int, int]], sizes: list[int]) -> dict[str, EnginePlace] | None:
    """None where they do not fit."""
    try:
        return places(stack(models), hosts_of(sizes))
    except InputError:
        return None


@QUICK
@for_all(MODELS, SIZES)
def test_every_engine_has_gpus_and_a_port_of_its_own(models: list[tuple[int, int]], sizes: list[int]) -> None:
    found = placed(models, sizes)
    if found is None:
        # a single host's engines of one size would have fitted: it is not refused for nothing
        assert not (len({size for _, size in models}) == 1 and sum(
            gpus // models[0][1] for gpus in sizes) >= sum(replicas for replicas, _ in models))  # fmt: skip
        return
    assert len(found) == sum(replicas for replicas, _ in models)
    cards = {host.name: {gpu.uuid for gpu in host.gpus} for host in hosts_of(sizes)}
    used = [uuid for place in found.values() for uuid in place.gpus]
    assert len(set(used)) == len(used)
    for name, place in found.items():
        assert set(place.gpus) <= cards[place.host]
        assert len(place.gpus) == models[int(name.split("-")[1][1:])][1]
        assert place.port in ENGINE_PORTS
    ports = [(place.host, place.port) for place in found.values()]
    assert len(set(ports)) == len(ports)


@QUICK
@for_all(MODELS, SIZES, st.integers(1, 8))
def test_a_host_more_moves_nothing(models: list[tuple[int, int]], sizes: list[int], more: int) -> None:
    before = placed(models, sizes)
    if before is not None:
        hosts = hosts_of([*sizes, more])
        for order in (hosts, hosts[::-1]):
            assert places(stack(models), order, before) == before


@QUICK
@for_all(MODELS, SIZES, st.tuples(st.integers(1, 3), st.sampled_from([1, 2])), st.integers(0, 4))
def test_a_model_more_moves_nothing(
    models: list[tuple[int, int]], sizes: list[int], more: tuple[int, int], at: int
) -> None:
    before = placed(models, sizes)
    if before is None:
        return
    config = stack([*models, more])
    at = min(at, len(models))
    added = config.models[len(models)]
    # wherever in the file it stands
    config = config.model_copy(update={"models": (*config.models[:at], added, *config.models[at : len(models)])})
    try:
        after = places(config, hosts_of(sizes), before)
    except InputError:
        return
    assert {name: place for name, place in after.items() if name in before} == before


@QUICK
@for_all(MODELS, SIZES)
def test_a_host_that_is_gone_moves_its_own_engines_only(models: list[tuple[int, int]], sizes: list[int]) -> None:
    before = placed(models, sizes)
    if before is None:
        return
    try:
        after = places(stack(models), hosts_of(sizes)[1:], before)
    except InputError:
        return
    stays = {name: place for name, place in before.items() if place.host != "gpu-0"}
    assert {name: after[name] for name in stays} == stays


@QUICK
@for_all(MODELS, SIZES)
def test_the_same_files_give_the_same_places(models: list[tuple[int, int]], sizes: list[int]) -> None:
    first = placed(models, sizes)
    assert placed(models, sizes) == first
    if first is not None:
        assert places(stack(models), hosts_of(sizes), first) == first


@pytest.mark.parametrize(("replicas", "hosts"), [(4, 4), (6, 3), (7, 3), (32, 4)])
def test_replicas_are_spread_evenly(replicas: int, hosts: int) -> None:
    counts = Counter(place.host for place in places(stack([(replicas, 1)]), hosts_of([8] * hosts)).values())
    assert len(counts) == hosts
    assert max(counts.values()) - min(counts.values()) <= 1


def test_two_replicas_are_on_two_hosts_even_where_one_has_more_room() -> None:
    found = places(stack([(2, 1)]), hosts_of([8, 1]))
    assert {place.host for place in found.values()} == {"gpu-0", "gpu-1"}


def test_large_engines_choose_before_small_ones() -> None:
    found = places(stack([(8, 1), (1, 8)]), hosts_of([8, 8]))
    assert len(found["engine-m1-0"].gpus) == 8


@pytest.mark.parametrize(
    ("models", "sizes", "counts"),
    [
        ([("auto", 1)], [8, 4], [12]),
        ([("auto", 4)], [8, 6, 3], [3]),
        ([("auto", 1), (3, 2)], [4, 4], [2, 3]),
        ([("auto", 1), ("auto", 1)], [2, 2], [2, 2]),
    ],
)
def test_auto_is_as_many_as_the_gpus_of_all_hosts_allow(
    models: list[tuple[Any, int]], sizes: list[int], counts: list[int]
) -> None:
    found = places(stack(models), hosts_of(sizes))
    assert [sum(name.startswith(f"engine-m{n}-") for name in found) for n in range(len(models))] == counts


def test_auto_without_gpus_is_one_on_each_host() -> None:
    config = given.config(given.toy(replicas="auto"))
    found = places(config, [given.host(name, 10 + n, roles=["engines"]) for n, name in enumerate("abc")])
    assert [place.host for place in found.values()] == ["a", "b", "c"]


def test_a_port_is_kept_and_a_freed_one_is_given_again() -> None:
    hosts = hosts_of([4])
    first = places(stack([(3, 1)]), hosts)
    assert [place.port for place in first.values()] == [18000, 18001, 18002]
    fewer = {name: place for name, place in first.items() if name != "engine-m0-1"}
    again = places(stack([(3, 1), (1, 1)]), hosts, fewer)
    assert again["engine-m0-2"].port == 18002
    assert sorted(place.port for place in again.values()) == [18000, 18001, 18002, 18003]


def test_a_gpu_that_is_gone_or_a_size_that_changed_is_placed_anew() -> None:
    hosts = hosts_of([4, 4])
    before = places(stack([(2, 1)]), hosts)
    lost = dict(before)
    lost["engine-m0-0"] = EnginePlace("gpu-0", ("GPU-99999999",), 18000)
    assert places(stack([(2, 1)]), hosts, lost)["engine-m0-1"] == before["engine-m0-1"]
    assert all(len(place.gpus) == 2 for place in places(stack([(2, 2)]), hosts, before).values())


def test_a_cordoned_engine_keeps_its_place_and_no_other_engine_changes() -> None:
    config, hosts = stack([(4, 1)]), hosts_of([2, 2])
    before = places(config, hosts)
    out = frozenset(before["engine-m0-1"].gpus)
    made = given.fleet(config, FRONT, *hosts, previous=before, cordoned=out)
    assert places_of(list(made.values())) == before
    assert [engine.name for engine in made["gpu-1"].cordoned] == ["engine-m0-1"]
    assert made["front"].fleet is not None
    assert made["front"].fleet.not_run == ("engine-m0-1",)
    assert not [target for target in made["front"].targets if target.labels.get("server") == "engine-m0-1"]


def test_what_would_fit_anew_is_said_where_kept_engines_are_in_its_way() -> None:
    before = {
        "engine-m0-0": EnginePlace("gpu-0", ("GPU-0000000a-0000",), 18000),
        "engine-m0-1": EnginePlace("gpu-1", ("GPU-0000000b-0000",), 18000),
    }
    hosts = hosts_of([2, 2])
    assert places(stack([(2, 1), (1, 2)]), hosts)
    with pytest.raises(InputError, match="without the lock beside the hosts file"):
        places(stack([(2, 1), (1, 2)]), hosts, before)
