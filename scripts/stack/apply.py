"""A validated tree onto this host: write, Compose, wait, reload."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
from docker.models.containers import Container

from stack.console import HEARTBEAT_SECONDS, say, step
from stack.docker_host import compose, condition, containers, started
from stack.engine_says import explain
from stack.errors import StackError
from stack.reload import RELOADABLE, reload, services_of
from stack.render import manifest
from stack.roll import replace_balancers, roll, to_replace
from stack.tree import Change, compare, read_tree, write_tree

OTHER_PARTS_SECONDS = 120
LOG_LINES, SEARCHED_LINES = 15, 500
# A container that ended this often before it was ever ready will not come up by waiting.
GIVE_UP_RESTARTS = 2


@dataclass(frozen=True)
class Before:
    """What was there when a command began: the applied files, what ran, and whether those files were proven.

    running: service -> (container id, start time).
    """

    files: Mapping[str, bytes]
    running: Mapping[str, tuple[str, str]]
    proven: bool

    @property
    def lost(self) -> bool:
        """Containers run, but the folder that they mount is gone: they hold a deleted one."""
        return bool(self.running) and not self.files


def look(project: str, live: Path, client: docker.DockerClient) -> Before:
    """What is there now."""
    files = read_tree(live)
    running = {name: part for name, part in containers(client, project).items() if part.status == "running"}
    marker = _marker(live)
    proven = bool(files) and marker.is_file() and marker.read_text() == _fingerprint(files)
    return Before(files, started(running), proven)


def mark_proven(live: Path, files: Mapping[str, bytes]) -> None:
    """Remember that this tree runs and passed its checks; until then each run reloads every part."""
    _marker(live).write_text(_fingerprint(files))


def bring_up(
    project: str, live: Path, files: Mapping[str, bytes], before: Before, client: docker.DockerClient,
    drained_files: Callable[[frozenset[str]], Mapping[str, bytes]],
) -> list[str]:  # fmt: skip
    """Write the tree, start what differs, wait until it is ready, reload what only changed its files.

    Engines that run and differ are replaced one after the other; drained_files: the tree with replicas drained.

    Returns what was started, reloaded or removed. Raises StackError naming the part that did not come up, with
    its last log lines.
    """
    changes = compare(before.files, files)
    write_tree(live, files)
    if before.lost:
        compose(live, "up", "--detach", "--no-build", "--pull", "never", "--force-recreate")
    limits = startup_timeouts(files)
    if before.running:
        replace_balancers(project, live, files, client)
    replaced = to_replace(project, files, client) if before.running else []
    if replaced:
        roll(project, live, files, replaced, drained_files, client, partial(wait_ready, project, limits, client))
    # a fleet's gateway may still send requests to what has no place here any more: it is stopped at the deploy's end
    orphans = () if json.loads(files["plan.json"]).get("fleet") else ("--remove-orphans",)
    with step("starting what differs"):
        compose(live, "up", "--detach", *orphans, "--no-build", "--pull", "never")
    wait_ready(project, limits, client)
    after = started(containers(client, project))
    fresh = sorted(service for service, seen in after.items() if before.running.get(service) != seen)
    reloaded = sorted(_stale(changes, before) - set(fresh))
    reload(project, reloaded, files, client)
    gone = sorted(before.running.keys() - after.keys())
    return (
        [f"started {name}" for name in fresh]
        + [f"reloaded {name}" for name in reloaded]
        + [f"removed {name}" for name in gone]
    )


def startup_timeouts(files: Mapping[str, bytes]) -> dict[str, float]:
    """Engine -> seconds it may take to be ready, from a tree's plan.json."""
    return {engine["name"]: engine["startup_timeout"] for engine in json.loads(files["plan.json"])["engines"]}


def wait_ready(project: str, limits: Mapping[str, float], client: docker.DockerClient, only: str | None = None) -> None:
    """Wait until every container (or one) is healthy, or running where it has no check; say what is waited for."""
    began = told = time.monotonic()
    restarts_before: dict[str, int] = {}
    while True:
        running = {name: part for name, part in containers(client, project).items() if only in (None, name)}
        restarts = {part.id or "": int(part.attrs["RestartCount"]) for part in running.values()}
        restarts_before = {**restarts, **restarts_before}
        waiting = {name: condition(part) for name, part in running.items()}
        waiting = {name: now for name, now in waiting.items() if now not in ("healthy", "running")}
        if not waiting:
            return
        elapsed = time.monotonic() - began
        for name in waiting:
            part = running[name]
            ended = restarts[part.id or ""] - restarts_before[part.id or ""]
            _give_up_if_hopeless(name, part, ended, elapsed, limits.get(name, OTHER_PARTS_SECONDS))
        if time.monotonic() - told >= HEARTBEAT_SECONDS:
            told = time.monotonic()
            say("waiting for " + ", ".join(f"{name} ({now})" for name, now in sorted(waiting.items())))
        time.sleep(0.5)


def _stale(changes: Sequence[Change], before: Before) -> set[str]:
    if before.files and not before.proven:
        return set(RELOADABLE)  # the last run ended before it had seen them read their files
    return set(services_of(change.unit for change in changes if change.needs == "reload"))


def _marker(live: Path) -> Path:
    return live.parent / "proven"


def _fingerprint(files: Mapping[str, bytes]) -> str:
    # of what the files hold, not of the manifest there: a run killed between the two leaves the old one
    return hashlib.sha256(manifest(files)).hexdigest() + "\n"


def _give_up_if_hopeless(name: str, part: Container, ended: int, elapsed: float, limit: float) -> None:
    if elapsed <= limit and not ended:
        return
    log = part.logs(tail=SEARCHED_LINES).decode(errors="replace").rstrip().splitlines()
    cause = explain("\n".join(log))
    if elapsed <= limit and ended < GIVE_UP_RESTARTS and cause is None:
        return
    why = f"ended {ended} times while starting" if ended else f"is not ready after {elapsed:.0f} s"
    lines = "\n".join(f"  | {line[:240]}" for line in log[-LOG_LINES:])
    raise StackError(f"{name} {why}{f': {cause}' if cause else ''}\nIts last log lines:\n{lines}")
