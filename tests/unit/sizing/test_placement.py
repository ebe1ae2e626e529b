"""Which GPUs each engine gets: neighbours together, what runs stays, the rest is named."""

from __future__ import annotations

import pytest

from stack.hardware import Gpu, Host
from stack.sizing.placement import Demand, place


def host(*topology: tuple[int | None, int | None], count: int = 8) -> Host:
    """GPUs a, b, c ...; topology: (nvlink, numa) of each."""
    places = topology or ((None, None),) * count
    return Host(
        gpus=tuple(
            Gpu(uuid=f"GPU-0000000{n:x}", model="NVIDIA A100-SXM4-80GB", memory_mib=81920, nvlink=nvlink, numa=numa)
            for n, (nvlink, numa) in enumerate(places)
        )
    )


def demands(**sizes: int) -> list[Demand]:
    return [Demand(name, size) for name, size in sizes.items()]


def numbers(gpus: tuple[Gpu, ...]) -> list[int]:
    return [int(gpu.uuid[-1], 16) for gpu in gpus]


def taken(asked: list[Demand], where: Host, **keys: object) -> dict[str, list[int]]:
    placement = place(asked, where, **keys)  # type: ignore[arg-type]
    return {name: numbers(gpus) for name, gpus in placement.taken.items()}


TWO_SOCKETS = ((0, 0),) * 4 + ((0, 1),) * 4
TWO_ISLANDS = ((0, 0),) * 2 + ((1, 0),) * 2 + ((2, 1),) * 4


def test_without_topology_gpus_are_given_in_order() -> None:
    placement = place(demands(a=2, b=1), host())
    assert {name: numbers(gpus) for name, gpus in placement.taken.items()} == {"a": [0, 1], "b": [2]}
    assert numbers(placement.spare) == [3, 4, 5, 6, 7]


def test_an_engine_of_several_gpus_stays_within_a_memory_node() -> None:
    assert taken(demands(single=1, pair=4), host(*TWO_SOCKETS)) == {"single": [4], "pair": [0, 1, 2, 3]}


def test_the_smallest_island_that_fits_is_taken() -> None:
    assert taken(demands(pair=2), host(*TWO_ISLANDS)) == {"pair": [0, 1]}
    assert taken(demands(four=4), host(*TWO_ISLANDS)) == {"four": [4, 5, 6, 7]}


def test_what_fits_no_island_is_spread_over_as_few_as_possible() -> None:
    assert taken(demands(six=6), host(*TWO_ISLANDS)) == {"six": [4, 5, 6, 7, 0, 1]}


def test_what_runs_keeps_its_gpus_when_a_model_comes() -> None:
    before = place(demands(a=2, b=1), host())
    previous = {name: tuple(gpu.uuid for gpu in gpus) for name, gpus in before.taken.items()}
    assert taken(demands(new=2, a=2, b=1), host(), previous=previous) == {"new": [3, 4], "a": [0, 1], "b": [2]}


def test_what_runs_keeps_its_gpus_when_a_model_goes() -> None:
    previous = {"a": ("GPU-00000000",), "b": ("GPU-00000001", "GPU-00000002")}
    assert taken(demands(b=2), host(), previous=previous) == {"b": [1, 2]}


def test_only_the_engine_on_a_cordoned_gpu_moves() -> None:
    previous = {"a": ("GPU-00000000",), "b": ("GPU-00000001",)}
    placement = place(demands(a=1, b=1), host(), previous, frozenset({"GPU-00000000"}))
    assert {name: numbers(gpus) for name, gpus in placement.taken.items()} == {"a": [2], "b": [1]}
    assert numbers(placement.cordoned) == [0]
    assert 0 not in numbers(placement.spare)


@pytest.mark.parametrize(
    "previous",
    [("GPU-00000000", "GPU-00000000"), ("GPU-00000000",), ("GPU-0000000f", "GPU-00000000"), ()],
)
def test_an_earlier_place_that_is_none_any_more_is_not_kept(previous: tuple[str, ...]) -> None:
    assert taken(demands(a=2), host(), previous={"a": previous}) == {"a": [0, 1]}


def test_two_engines_cannot_keep_the_same_gpu() -> None:
    previous = {"a": ("GPU-00000003",), "b": ("GPU-00000003",)}
    assert taken(demands(a=1, b=1), host(), previous=previous) == {"a": [3], "b": [0]}


def test_what_is_missing_is_counted_without_the_cordoned() -> None:
    placement = place(demands(a=8), host(), cordoned=frozenset({"GPU-00000001"}))
    assert placement.missing == 1
    assert placement.taken == {}
