"""Docker's engine and Compose."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stack.day2.doctor import Box, Finding

LEAST = (20, 10)
# From here on the engine hands GPUs out by CDI, which survives `systemctl daemon-reload`.
LEAST_CDI = (28, 0)


def engine(box: Box) -> Iterator[Finding]:
    """Version, and whether it comes back with the machine."""
    if box.client is None:
        return  # told already
    info: dict[str, Any] = box.client.info()
    version = str(info.get("ServerVersion", "?"))
    told = f"{version}, {info.get('Driver')}, cgroup v{info.get('CgroupVersion', '1')} ({info.get('CgroupDriver')})"
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if number < LEAST:
        yield Finding("problem", "Docker engine", told, f"{_dotted(LEAST)} or newer is needed")
    elif box.config.device == "cuda" and number < LEAST_CDI:
        todo = f"{_dotted(LEAST_CDI)} or newer on GPU hosts: it hands GPUs out by CDI"
        yield Finding("problem", "Docker engine", told, todo)
    else:
        yield Finding("ok", "Docker engine", told)
    if info.get("SecurityOptions") and any("rootless" in option for option in info["SecurityOptions"]):
        yield Finding("warning", "Docker engine", "rootless", "not tried; ports below 1024 and GPUs need more set-up")


def at_boot(_: Box) -> Iterator[Finding]:
    """The engine, and with it the stack, comes back after a reboot."""
    if not Path("/run/systemd/system").is_dir() or not shutil.which("systemctl"):
        yield Finding("ok", "start at boot", "no systemd here: whatever starts Docker has to do it at boot too")
        return
    done = subprocess.run(
        ["systemctl", "is-enabled", "docker.service"], capture_output=True, text=True, timeout=20, check=False
    )
    said = done.stdout.strip() or done.stderr.strip()
    if done.returncode:
        yield Finding("warning", "start at boot", f"docker.service is {said}", "`systemctl enable docker`")
    else:
        yield Finding("ok", "start at boot", f"docker.service is {said}")


def compose(_: Box) -> Iterator[Finding]:
    """The Compose that the environment brings."""
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    if not program.exists():
        yield Finding("problem", "Compose", f"{program} is missing", "`scripts/setup.sh venv`")
        return
    done = subprocess.run([program, "version", "--short"], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        yield Finding("problem", "Compose", done.stderr.strip()[:200], "`rm -rf .venv && scripts/setup.sh venv`")
    else:
        yield Finding("ok", "Compose", done.stdout.strip())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


CHECKS = (engine, compose, at_boot)
