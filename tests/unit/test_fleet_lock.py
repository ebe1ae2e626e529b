"""hosts.lock, and the command that writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack import fleet_lock
from stack.errors import InputError
from stack.plan.places import EnginePlace
from unit import given

A = EnginePlace("gpu-a", ("GPU-00000001", "GPU-00000002"), 18000)
B = EnginePlace("gpu-b", (), 18003)


def test_what_was_saved_is_read_back_an_engine_a_line(tmp_path: Path) -> None:
    path = fleet_lock.lock_file(tmp_path / "hosts.yaml")
    assert path.name == "hosts.lock"
    assert fleet_lock.load(path) == {}
    for places in ({"engine-a-0": A, "engine-b-1": B}, {}):
        fleet_lock.save(path, places)
        assert fleet_lock.load(path) == places
    assert [entry.name for entry in tmp_path.iterdir()] == ["hosts.lock"]


@pytest.mark.parametrize(
    ("content", "wheres"),
    [
        ("engines: {a: {host: gpu-a}}", ["engines.a.port"]),
        ("engines: {a: {host: gpu-a, port: 0, gpus: [1]}}", ["engines.a.port", "engines.a.gpus[0]"]),
        ("places: {}", ["engines", "places"]),
    ],
)
def test_a_wrong_lock_is_refused_at_every_place(tmp_path: Path, content: str, wheres: list[str]) -> None:
    (tmp_path / "hosts.lock").write_text(content)
    with pytest.raises(InputError) as error:
        fleet_lock.load(tmp_path / "hosts.lock")
    assert given.wheres(error.value) == wheres


def test_moves_are_told_apart_from_what_is_new_or_gone() -> None:
    port = EnginePlace(A.host, A.gpus, 18009)
    moves = fleet_lock.moves(
        {"kept": A, "gone": A, "moved": A, "port": A}, {"kept": A, "new": B, "moved": B, "port": port}
    )
    assert (moves.added, moves.removed, moves.moved) == (("new",), ("gone",), ("moved",))
