"""The Docker daemon restarts, as at every update of it; the stack is back without a person."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import requests

from faults.running import all_serve, ask, until
from integration.conftest import PROJECT, ROOT, Stack
from stack.docker_host import containers

PID_FILE = Path("/run/docker.pid")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_docker_daemon_restarts(stack: Stack, number: signal.Signals) -> None:
    foreign = {part.name for part in stack.client.containers.list()} - {
        part.name for part in containers(stack.client, PROJECT).values()
    }
    if foreign:
        pytest.skip(f"containers of somebody else run on this engine: {sorted(map(str, foreign))}")
    at, pid = time.monotonic(), int(PID_FILE.read_text())
    os.kill(pid, number)
    until(lambda: not Path(f"/proc/{pid}").exists() or _zombie(pid), at, 60, f"dockerd ended by {number.name}")
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "restart", "docker"], check=True, timeout=120)
    else:
        subprocess.run([ROOT / "scripts/setup.sh", "docker"], check=True, timeout=120, capture_output=True)
    until(lambda: _completes(stack), at, 180, "a completion through the gateway")
    all_serve(stack)
    done = stack.script("smoke")
    assert done.code == 0, done.out
    assert stack.script("up").out.startswith("Nothing changed")


def _zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def _completes(stack: Stack) -> bool:
    try:
        return ask(stack, timeout=5).status_code == 200
    except requests.RequestException:
        return False
