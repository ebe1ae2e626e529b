"""What the stack has come to since it was started: its secrets, locks, containers, and what a person took out."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

from stack import cordons, drains
from stack.adjust import applied_plan
from stack.config.folders import absolute
from stack.day2.doctor import Box, Finding
from stack.docker_host import condition, containers
from stack.errors import InputError
from stack.inputs import ROOT
from stack.smoke import UP, services

RECENT_SECONDS = 86400.0


def secrets(box: Box) -> Iterator[Finding]:
    """Files that hold a secret are their owner's alone."""
    files = [path for path in (box.state / "secrets").rglob("*") if path.is_file()]
    files += list((box.state / "tls").glob("*.key"))
    if box.config.hub.token_file:
        files.append(absolute(ROOT, box.config.hub.token_file))
    files = [path for path in files if path.exists()]
    loose = [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in loose:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Finding("problem", "secret", f"{path} has mode {mode:04o}: others may read it", f"`chmod 0400 {path}`")
    if files and not loose:
        yield Finding("ok", "secrets", f"{len(files)} files, each its owner's alone")


def locks(box: Box) -> Iterator[Finding]:
    """Commands that are at work right now. The kernel is asked, so that nobody is kept from taking the lock."""
    held = _held_locks()
    for path in (box.state / "lock", box.shared / "lock", box.shared / "models/lock"):
        if path.exists() and (process := held.get(path.stat().st_ino)):
            yield Finding("warning", "lock", f"{path} is held by process {process}", "another command is at work: wait")


def put_aside(box: Box) -> Iterator[Finding]:
    """Replicas and GPUs that a person took out, and may have forgotten."""
    for name in sorted(drains.drained(box.state)):
        yield Finding("warning", name, "drained: it gets no requests", f"`make undrain REPLICA={name}`")
    for gpu in sorted(cordons.cordoned(box.state)):
        yield Finding("warning", gpu, "cordoned: no replica runs on it", f"`make uncordon GPU={gpu}`")


def running(box: Box) -> Iterator[Finding]:
    """The applied stack's containers."""
    try:
        plan = applied_plan(box.state / "live")
    except InputError:
        yield Finding("ok", "stack", "not applied yet: `make up`")
        return
    if box.client is None:
        return
    parts = containers(box.client, plan["project"])
    if not parts:
        yield Finding("ok", "stack", "applied, and stopped: `make up` brings it back")
        return
    bad = 0
    for name in services(plan):
        now = condition(parts[name]) if name in parts else "missing"
        restarts = parts[name].attrs["RestartCount"] if name in parts else 0
        if now not in UP:
            bad += 1
            status = "warning" if now == "starting" else "problem"
            yield Finding(status, name, now, f"`make logs SERVICE={name}`, then `make up`")  # type: ignore[arg-type]
        elif restarts:
            yield Finding("warning", name, f"{now}, and was restarted {restarts} times", f"`make logs SERVICE={name}`")
    if not bad:
        yield Finding("ok", "stack", f"{len(services(plan))} containers run; `make smoke` proves that they serve")


def evidence(box: Box) -> Iterator[Finding]:
    """Engines that were found wedged within a day."""
    now = time.time()
    for folder in sorted((box.state / "evidence").glob("*/*")):
        if folder.is_dir() and now - folder.stat().st_mtime < RECENT_SECONDS:
            yield Finding("warning", folder.parent.name, f"was wedged: {folder}", f"`cat {folder}/reason.json`")


def _held_locks() -> dict[int, str]:
    """Inode -> process, of every flock on this machine."""
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " FLOCK " in line]
    return {int(row[5].rsplit(":", 1)[1]): row[4] for row in rows if row[1] != "->"}


CHECKS = (secrets, locks, put_aside, running, evidence)
