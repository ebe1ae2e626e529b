"""Grafana's two secrets: made once, read by nobody else, and never changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import cast

import docker
import pytest

from stack.config.gateway import Gateway
from stack.day2.diagnose_parts import known_secrets
from stack.errors import InputError
from stack.secrets import grafana
from stack.secrets.check import check, tighten
from stack.secrets.copies import hand_out
from stacks import ROOT

NO_DOCKER = cast(docker.DockerClient, None)


def values(state: Path) -> list[str]:
    return [copy.content.decode().strip() for copy in grafana.ensure(state)]


def test_they_are_made_once_private_long_and_different(tmp_path: Path) -> None:
    first = values(tmp_path)
    assert values(tmp_path) == first
    assert len(set(first)) == 2
    assert all(len(value) >= 32 for value in first)
    for name in grafana.FILES.values():
        path = tmp_path / "secrets" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert grafana.password_file(tmp_path).read_text().strip() == first[0]
    assert values(tmp_path / "other") != first


def test_the_copies_are_the_containers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana, "GRAFANA_UID", os.geteuid())  # no test needs root or Docker for them
    copies = grafana.ensure(tmp_path)
    hand_out(tmp_path, copies, "nginx", NO_DOCKER)
    tighten(tmp_path)
    for copy in copies:
        path = copy.path(tmp_path)
        assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (0o400, copy.content)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", grafana.FILES.values())
@pytest.mark.parametrize("damage", ["empty", "folder", "not text"])
def test_one_that_is_damaged_is_told_by_its_path_before_anything_is_done(
    tmp_path: Path, name: str, damage: str
) -> None:
    grafana.ensure(tmp_path)
    path = tmp_path / "secrets" / name
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff\xfe")
    with pytest.raises(InputError, match=f"{name}.*restore it"):
        check(tmp_path, [], Gateway(), ROOT)
    with pytest.raises(InputError):
        grafana.ensure(tmp_path)


def test_what_is_not_made_yet_is_no_problem(tmp_path: Path) -> None:
    check(tmp_path, [], Gateway(), ROOT)
    assert not (tmp_path / "secrets").exists()


def test_no_value_leaves_with_a_diagnosis(tmp_path: Path) -> None:
    assert set(values(tmp_path)) <= known_secrets(tmp_path, (), {})
