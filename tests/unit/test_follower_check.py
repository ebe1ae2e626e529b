"""The health check of a part that follows: a leader that is gone ends it, one that is still to come does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.test_engine_check import load

follower = load("follower")


@pytest.fixture
def leader() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def check(place: tuple[str, int], folder: Path) -> tuple[int, list[int]]:
    """(exit code, processes that were killed), in a container with its init and two more processes."""
    killed: list[int] = []
    proc = folder / "proc"
    for pid in (1, 10, 11):
        (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    code = follower.main(place, folder / "memory", proc, lambda pid, _: killed.append(pid))
    return code, killed


def test_it_waits_for_a_leader_that_is_still_to_come(leader: socket.socket, tmp_path: Path) -> None:
    place = leader.getsockname()
    leader.close()
    assert [check(place, tmp_path) for _ in range(3)] == [(0, [])] * 3


def test_a_leader_that_is_gone_ends_it_at_the_next_look(leader: socket.socket, tmp_path: Path) -> None:
    place = leader.getsockname()
    assert check(place, tmp_path) == (0, [])
    leader.close()
    assert check(place, tmp_path) == (1, [11, 10])


def test_silence_ends_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = follower.Seen(joined=True)

    def no_answer(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", no_answer)
    told = []
    for _ in range(follower.SILENT):
        seen, problem = follower.look(("10.0.0.1", 19000), seen)
        told.append(bool(problem))
    assert told == [False] * (follower.SILENT - 1) + [True]
    alone, problem = follower.look(("10.0.0.1", 19000), follower.Seen(silent=99))
    assert (alone.joined, problem) == (False, ""), "it was never there"


def test_an_answer_makes_up_for_silence(leader: socket.socket) -> None:
    seen, problem = follower.look(leader.getsockname(), follower.Seen(joined=True, silent=follower.SILENT - 1))
    assert (seen, problem) == (follower.Seen(joined=True), "")
