"""The driver and what lies between it and a container. Whether the GPUs fit the plan is preflight's to say."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stack.day2.doctor import Box, Finding

DRIVER = Path("/proc/driver/nvidia/version")
# Not NVML's fabric state, which A100 does not have: the kernel's own list of switches.
SWITCHES = Path("/proc/driver/nvidia-nvswitch/devices")
CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
FABRIC_MANAGER = "nv-fabricmanager"
SECONDS = 30


def driver(box: Box) -> Iterator[Finding]:
    """The kernel's driver, and that nvidia-smi speaks with it."""
    if box.config.device == "cpu":
        if DRIVER.exists():
            yield Finding("ok", "GPU driver", "there is one; this stack runs on the CPU (device: cpu)")
        return
    if not DRIVER.exists():
        todo = "install NVIDIA's driver, or reboot into the kernel that it was built for (`dkms status`)"
        yield Finding("problem", "GPU driver", "the kernel has no NVIDIA driver loaded", todo)
    if not shutil.which("nvidia-smi"):
        yield Finding("problem", "nvidia-smi", "not found", "it comes with the driver's utilities package")
        return
    done = _smi("--query-gpu=index,uuid,name,driver_version,persistence_mode", "--format=csv,noheader")
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        todo = "reboot: libraries and kernel module differ" if "mismatch" in said else "`dmesg | grep -i nvrm`"
        yield Finding("problem", "nvidia-smi", said.splitlines()[0] if said else f"exit {done.returncode}", todo)
        return
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if not rows:
        yield Finding("problem", "nvidia-smi", "no GPU", "`lspci | grep -i nvidia`, `dmesg | grep -i xid`")
        return
    yield Finding("ok", "GPU driver", f"{rows[0][3]}, {len(rows)} x {rows[0][2]}")
    if any(row[4] != "Enabled" for row in rows):
        todo = "`systemctl enable --now nvidia-persistenced`: without it the first use of an idle GPU takes seconds"
        yield Finding("warning", "persistence mode", "off", todo)


def fabric_manager(box: Box) -> Iterator[Finding]:
    """On a box with NVSwitches CUDA fails with error 802 until Fabric Manager of the very driver version runs."""
    if box.config.device == "cpu" or not (SWITCHES.is_dir() and any(SWITCHES.iterdir())):
        return
    count = len(list(SWITCHES.iterdir()))
    if not _runs(FABRIC_MANAGER):
        todo = "`systemctl enable --now nvidia-fabricmanager`; without it CUDA fails with error 802"
        yield Finding("problem", "Fabric Manager", f"does not run, and there are {count} NVSwitches", todo)
        return
    own, loaded = _version([FABRIC_MANAGER, "--version"]), _loaded()
    if own and loaded and own != loaded:
        todo = f"install nvidia-fabricmanager {loaded}: it has to be of the very version of the driver"
        yield Finding("problem", "Fabric Manager", f"{own}, and the driver is {loaded}", todo)
    else:
        yield Finding("ok", "Fabric Manager", f"{own or 'runs'}, {count} NVSwitches")


def container_toolkit(box: Box) -> Iterator[Finding]:
    """What hands GPUs to containers."""
    if box.config.device == "cpu":
        return
    version = _version(["nvidia-ctk", "--version"])
    if version is None:
        todo = "install the NVIDIA Container Toolkit"
        yield Finding("problem", "container toolkit", "nvidia-ctk is not found", todo)
    else:
        yield Finding("ok", "container toolkit", version)
    specs = [path for folder in CDI_FOLDERS if folder.is_dir() for path in folder.iterdir() if "nvidia" in path.name]
    if not specs:
        todo = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, again after each change of the driver or MIG"
        yield Finding("warning", "CDI", f"no specification in {' or '.join(map(str, CDI_FOLDERS))}", todo)
        return
    newest = max(specs, key=lambda path: path.stat().st_mtime)
    loaded = _loaded()
    if loaded and loaded not in newest.read_text():
        todo = f"`nvidia-ctk cdi generate --output={newest}`: the driver was changed since"
        yield Finding("problem", "CDI", f"{newest} is not of the driver {loaded}", todo)
    else:
        yield Finding("ok", "CDI", str(newest))


def _smi(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 124, "", f"no answer within {SECONDS} s: the driver hangs")


def _version(command: list[str]) -> str | None:
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return _first(done.stdout + done.stderr)


def _loaded() -> str | None:
    return _first(DRIVER.read_text()) if DRIVER.exists() else None


def _first(text: str) -> str | None:
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found.group(0) if found else None


def _runs(name: str) -> bool:
    # the kernel keeps the first 15 characters of a command's name
    return any(_comm(path) == name[:15] for path in Path("/proc").glob("[0-9]*/comm"))


def _comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


CHECKS = (driver, fabric_manager, container_toolkit)
