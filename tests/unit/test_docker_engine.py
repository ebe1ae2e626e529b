"""Which Docker engine a host has, read from files laid out as one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from docker_engine import engine


def found(root: Path) -> dict[str, Any]:
    binaries = [str(root / "missing"), str(root / "dockerd")]
    said: dict[str, Any] = engine(
        binaries, str(root / "docker.sock"), str(root / "daemon.json"), str(root / "docker.pid")
    )
    return said


def test_a_bare_host_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == {
        "binary": "",
        "socket": False,
        "config": {},
        "config_error": None,
        "command_line": [],
        "outdated": False,
    }


def test_a_running_engine_is_read_by_its_process(tmp_path: Path) -> None:
    (tmp_path / "dockerd").touch()
    (tmp_path / "docker.pid").write_text(f"{os.getpid()}\n")
    said = found(tmp_path)
    assert said["binary"] == str(tmp_path / "dockerd")
    assert any("python" in word for word in said["command_line"])


def test_an_engine_that_died_and_left_its_file_has_no_command_line(tmp_path: Path) -> None:
    (tmp_path / "docker.pid").write_text("99999999")
    assert found(tmp_path)["command_line"] == []


@pytest.mark.parametrize(("written", "outdated"), [(10, False), (20, False), (30, True)])
def test_an_engine_is_outdated_by_a_configuration_that_is_newer(tmp_path: Path, written: int, outdated: bool) -> None:
    for name, at in (("docker.pid", 20), ("daemon.json", written)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    assert found(tmp_path)["outdated"] is outdated


@pytest.mark.parametrize(
    ("text", "config", "error"),
    [
        ("", {}, None),
        ('{"dns": ["1.1.1.1"]}', {"dns": ["1.1.1.1"]}, None),
        ("[]", {}, "it is not an object"),
        ('{"dns": }', {}, "Expecting value"),
    ],
)
def test_a_configuration_is_read_or_said_to_be_no_one(
    tmp_path: Path, text: str, config: dict[str, Any], error: str | None
) -> None:
    (tmp_path / "daemon.json").write_text(text)
    said = found(tmp_path)
    assert said["config"] == config
    assert (said["config_error"] is None) if error is None else (error in said["config_error"])
