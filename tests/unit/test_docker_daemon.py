"""daemon.json: what a user wrote stays, what a role sets wins."""

from __future__ import annotations

from typing import Any

import pytest
from docker_daemon import merged_daemon_json

OURS: dict[str, Any] = {
    "log-driver": "json-file",
    "log-opts": {"max-size": "50m"},
    "live-restore": True,
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
}


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, OURS),
        ({"registry-mirrors": ["https://m"]}, {"registry-mirrors": ["https://m"], **OURS}),
        ({"runtimes": {"nvidia": {"path": "p"}}}, {"runtimes": {"nvidia": {"path": "p"}}, **OURS}),
        ({"log-opts": {"labels": "a", "max-size": "1m"}}, {**OURS, "log-opts": {"labels": "a", "max-size": "50m"}}),
        ({"log-driver": "journald", "log-opts": {"tag": "t"}}, OURS),
        (
            {"exec-opts": ["native.cgroupdriver=systemd", "isolation=x"]},
            {**OURS, "exec-opts": ["isolation=x", "native.cgroupdriver=cgroupfs"]},
        ),
        ({"live-restore": False}, OURS),
    ],
)
def test_keys_are_merged(before: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged_daemon_json(before, OURS) == expected


def test_merging_again_changes_nothing() -> None:
    once = merged_daemon_json({"exec-opts": ["native.cgroupdriver=systemd"], "dns": ["10.0.0.1"]}, OURS)
    assert merged_daemon_json(once, OURS) == once
