"""What a pool lacks while its engines are replaced on one host, where that is more than its stack file lets happen."""

from __future__ import annotations

import pytest

from stack.roll import shortages
from unit import fake_docker, given


@pytest.mark.parametrize(
    ("health", "drained", "max_unavailable", "expected"),
    [
        pytest.param("+++", "", 1, "", id="one of three may be away"),
        pytest.param("+++", "", 0, "0: only 2 1: only 2 2: only 2", id="none may"),
        pytest.param("+", "", 1, "0: no other", id="the only one"),
        pytest.param("+-", "", 1, "", id="the broken one comes first, and is there when the other goes"),
        pytest.param("+++", "2", 1, "0: only 1 1: only 1", id="a drained one is no spare"),
        pytest.param("+++", "2", 2, "", id="unless two may be away"),
        pytest.param("+-", "1", 1, "0: no other", id="nobody misses one that is drained and broken"),
    ],
)
def test_shortages(health: str, drained: str, max_unavailable: int, expected: str) -> None:
    plan = given.plan(given.config(given.toy(replicas=len(health), max_unavailable=max_unavailable)))
    names = [f"engine-toy-{number}" for number in range(len(health))]
    running = [
        fake_docker.container(name, health="healthy" if one == "+" else "unhealthy")
        for name, one in zip(names, health, strict=True)
    ]
    out = frozenset(f"engine-toy-{number}" for number in drained)
    found = shortages(plan, names, out, fake_docker.engine(*running))
    assert " ".join(f"{name[-1]}: {' '.join(why.split()[:2])}" for name, why in sorted(found.items())) == expected
