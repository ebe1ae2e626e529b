"""keepalived's check of a gateway host, run by sh: what it says while Docker is restarted, and for how long."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unit.test_fleet_tree import read

PROGRAMS = {
    "curl": 'case "$*" in *:{silent}/*) exit 7 ;; esac',
    "systemctl": 'case "$*" in *ActiveState*) echo {state} ;; *) echo {since} ;; esac',
}
NOBODY = "*"  # as a pattern of sh: every port


def check(folder: Path, state: str, seconds_ago: float = 1, silent: str = NOBODY) -> int:
    """Its exit code, where this port does not answer and systemd says so of Docker."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    told = {"silent": silent, "state": state, "since": int((uptime - seconds_ago) * 1e6)}
    for name, text in PROGRAMS.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{text.format(**told)}\n")
        program.chmod(0o755)
    script = folder / "check_gateway.sh"
    script.write_text(read("gw-b", "host/keepalived/check_gateway.sh"))
    return subprocess.run(["/bin/sh", str(script)], env={"PATH": str(folder)}, check=False).returncode


@pytest.mark.parametrize(
    ("state", "seconds_ago", "serves"),
    [
        ("activating", 1, True),
        ("deactivating", 20, True),
        ("activating", 40, False),
        ("active", 1, False),
        ("failed", 1, False),
        ("", 1, False),  # no systemd
    ],
)
def test_one_that_does_not_answer_keeps_the_address_for_a_restart_of_docker_alone(
    tmp_path: Path, state: str, seconds_ago: float, serves: bool
) -> None:
    assert (check(tmp_path, state, seconds_ago) == 0) == serves


def test_one_that_answers_serves_with_either_haproxy(tmp_path: Path) -> None:
    assert check(tmp_path, "active", silent="1") == 0
    assert check(tmp_path, "active", silent="17405") == 0
    assert check(tmp_path, "active", silent="17406") != 0
