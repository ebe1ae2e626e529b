"""A validated tree onto this host: write, Compose, wait, reload. What fails is put back."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.models.containers import Container

from stack.console import HEARTBEAT_SECONDS, say
from stack.docker_host import compose, condition, containers, started
from stack.errors import StackError
from stack.plan import Plan
from stack.tree import Change, write_tree

# What makes each program read its files again without dropping a request.
RELOAD_SIGNALS = {"nginx": "HUP", "haproxy": "USR2", "prometheus": "HUP", "alertmanager": "HUP"}
OTHER_PARTS_SECONDS = 120
LOG_LINES = 15
# A container that ended this often before it was ever ready will not come up by waiting.
GIVE_UP_RESTARTS = 2


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the stack's lock: two `make up` at once would undo each other. The kernel frees it with the process."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another command is changing this stack right now (lock {state}/lock)") from None
        yield


def bring_up(
    plan: Plan,
    live: Path,
    files: Mapping[str, bytes],
    changes: Sequence[Change],
    also_reload: Sequence[str],
    client: docker.DockerClient,
) -> list[str]:
    """Write the tree, start what differs, wait until it is ready, reload what only changed its files.

    Returns the services that were created, restarted or reloaded. Raises StackError naming the part that did
    not come up, with its last log lines.
    """  # fmt: skip
    before = started(containers(client, plan.project))
    write_tree(live, files)
    compose(live, "up", "--detach", "--remove-orphans", "--no-build", "--pull", "never")
    wait_ready(plan, client)
    after = started(containers(client, plan.project))
    fresh = sorted(service for service, seen in after.items() if before.get(service) != seen)
    stale = {change.unit for change in changes if change.needs == "reload"} | set(also_reload)
    reloaded = sorted(stale - set(fresh))
    reload(plan, reloaded, client)
    gone = sorted(before.keys() - after.keys())
    return (
        [f"started {name}" for name in fresh]
        + [f"reloaded {name}" for name in reloaded]
        + [f"removed {name}" for name in gone]
    )


def reload(plan: Plan, services: Sequence[str], client: docker.DockerClient) -> None:
    """Send each service its reload signal."""
    running = containers(client, plan.project)
    for service in services:
        if service in running:
            running[service].kill(signal=RELOAD_SIGNALS[service])


def wait_ready(plan: Plan, client: docker.DockerClient) -> None:
    """Wait until every container is healthy (or running, where it has no check), saying what is waited for."""
    limits = {engine.name: float(engine.startup_timeout) for engine in plan.engines}
    began = told = time.monotonic()
    restarts_before: dict[str, int] = {}
    while True:
        running = containers(client, plan.project)
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


def _give_up_if_hopeless(name: str, part: Container, ended: int, elapsed: float, limit: float) -> None:
    if elapsed <= limit and ended < GIVE_UP_RESTARTS:
        return
    why = f"ended {ended} times while starting" if ended else f"is not ready after {elapsed:.0f} s"
    log = part.logs(tail=LOG_LINES).decode(errors="replace").rstrip()
    lines = "\n".join(f"  | {line[:240]}" for line in log.splitlines())
    raise StackError(f"{name} {why}; its last log lines:\n{lines}")
