"""The machine itself: system, processor, memory, disks, clock."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from stack.day2.doctor import Box, Finding
from stack.disk_space import gib

SUPPORTED = {"debian": 12.0, "ubuntu": 22.04}
# Disk: what preflight refuses is a problem; below this a night of logs and metrics may fill it.
LOW_DISK_BYTES = 10 * 2**30
LOW_INODES = 0.05
# A CPU engine beside its KV cache, measured at 2.3 to 3 GiB with the toy model; gateway and metrics together.
CPU_ENGINE_BYTES, OTHER_PARTS_BYTES = 3 * 2**30, 2**30
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


def system(_: Box) -> Iterator[Finding]:
    """A system that set-up and Ansible know, and 64-bit x86."""
    try:
        about = platform.freedesktop_os_release()
    except OSError:
        about = {}
    name, version = about.get("ID", "?"), about.get("VERSION_ID", "?")
    told = f"{about.get('PRETTY_NAME', 'unknown')}, kernel {platform.release()}, {platform.machine()}"
    least = SUPPORTED.get(name)
    try:
        known = least is not None and float(version) >= least
    except ValueError:
        known = least is not None  # testing and unstable have no number
    if known:
        yield Finding("ok", "system", told)
    else:
        yield Finding("warning", "system", told, "tried on Debian 12 and Ubuntu 22.04 or newer: install Docker by hand")
    if platform.machine() != "x86_64":
        yield Finding("problem", "processor", platform.machine(), "the images are for x86_64")


def python(_: Box) -> Iterator[Finding]:
    """The interpreter that runs this; `scripts/setup.sh venv` made it."""
    yield Finding("ok", "Python", f"{platform.python_version()} in {Path(sys.executable).parents[1]}")


def memory(box: Box) -> Iterator[Finding]:
    """Host memory against what the plan's engines take."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    here = f"{gib(total)} of memory, {os.cpu_count()} processors"
    if box.plan is None:
        yield Finding("ok", "memory", here)
        return
    if box.config.device == "cpu":
        each = {model.served_model_name: model.cpu_kvcache_space * 2**30 for model in box.config.models}
        needs = sum(each[engine.served_model_name] + CPU_ENGINE_BYTES for engine in box.plan.engines)
    else:
        # a ceiling, not an allocation; weights pass through the page cache
        needs = sum(engine.shm_mib * 2**20 for engine in box.plan.engines)
    needs += OTHER_PARTS_BYTES
    told = f"{here}; {len(box.plan.engines)} engine(s) and the rest may take {gib(needs)}"
    if total < needs:
        yield Finding("problem", "memory", told, "fewer replicas, or a smaller cpu_kvcache_space")
    else:
        yield Finding("ok", "memory", told)


def disks(box: Box) -> Iterator[Finding]:
    """Room where the stack and Docker write."""
    folders = {"state": box.shared}
    if box.client is not None:
        folders["Docker"] = Path(box.client.info().get("DockerRootDir", "/var/lib/docker"))
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usage, system_ = shutil.disk_usage(there), os.statvfs(there)
        told = f"{gib(usage.free)} of {gib(usage.total)} free at {there}"
        few = system_.f_files and system_.f_favail / system_.f_files < LOW_INODES
        if usage.free < LOW_DISK_BYTES or few:
            why = " and hardly an inode" if few else ""
            yield Finding("warning", f"disk of {name}", told + why, "`make gc DRY_RUN=1` shows what can go")
        else:
            yield Finding("ok", f"disk of {name}", told)


def clock(_: Box) -> Iterator[Finding]:
    """Whether the kernel's clock is synchronized: certificates, logs of several hosts and alerts need it."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, modes 0: read only
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if state == TIME_ERROR:
        yield Finding("warning", "clock", "not synchronized", "`timedatectl set-ntp true`, or install chrony")
    else:
        yield Finding("ok", "clock", "synchronized")


CHECKS = (system, python, memory, disks, clock)
