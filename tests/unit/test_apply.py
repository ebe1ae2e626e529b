"""A tree onto a host: who is waited for, and who is given up and why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.models.containers import Container

from stack import apply
from stack.errors import StackError
from unit import fake_docker

NO_SPACE = (
    b"ValueError: To serve at least one request with the model's max seq len (9000), (2.0 GiB KV cache is needed,"
    b" which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated"
    b" maximum model length is 4500. Try\n"
)


def starting(log: bytes, restarts: list[int]) -> docker.DockerClient:
    """An engine's container that is never ready. restarts: what Docker counts, from one look to the next."""

    def listed(**_: object) -> list[Container]:
        part = fake_docker.container("engine-toy-0", health="starting")
        part.attrs["RestartCount"] = restarts.pop(0) if len(restarts) > 1 else restarts[0]
        cast(Any, part).logs = lambda **_: log
        return [part]

    return cast(docker.DockerClient, SimpleNamespace(containers=SimpleNamespace(list=listed)))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(apply, "time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda _: None))


def failure(client: docker.DockerClient, limit: float = 500) -> str:
    with pytest.raises(StackError) as error:
        apply.wait_ready("vllm-onprem", {"engine-toy-0": limit}, client)
    return str(error.value)


def test_an_engine_that_says_why_it_ended_is_given_up_at_once_with_the_keys_to_change() -> None:
    told = failure(starting(NO_SPACE, [0, 0, 1]))
    assert told.startswith("engine-toy-0 ended 1 times while starting: no space for the KV cache")
    assert "Lower max_model_len to at most 4500" in told
    assert told.splitlines()[-1].startswith("  | ValueError")


def test_an_engine_that_ends_without_a_known_cause_gets_a_second_try() -> None:
    told = failure(starting(b"KeyError: 'x'\n", [0, 1, 1, 2]))
    assert told.startswith("engine-toy-0 ended 2 times while starting\nIts last log lines:\n  | KeyError")


def test_restarts_of_another_day_do_not_count() -> None:
    assert "is not ready after" in failure(starting(NO_SPACE, [7]), limit=3)
