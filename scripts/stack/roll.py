"""Engines replaced one after the other: out of the pool, requests in flight done, replaced, own completion, back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import docker
import requests
from docker.models.containers import Container

from stack.checks import answers
from stack.console import say, step
from stack.docker_host import HASH_LABEL, asked_at, compose, condition, containers, get_page
from stack.effects import service_hashes
from stack.errors import StackError
from stack.observe.silences import silenced
from stack.plan.types import Plan
from stack.reload import SERVICES, reload, services_of
from stack.smoke import ask_replica
from stack.tree import write_tree

# A replica that HAProxy has just been told to leave alone may still get what was on its way.
SETTLE_SECONDS = 0.5
# nginx asks for the address of a HAProxy every 2 s, and the new one looks its engines up.
NEW_ADDRESS_SECONDS = 5
# Said of an engine whose start has not been seen yet.
DEFAULT_START_SECONDS = 120

Files = Mapping[str, bytes]


def to_replace(project: str, files: Files, client: docker.DockerClient) -> list[str]:
    """Running engines that Compose would recreate for these files; those that do not serve first."""
    engines = {engine["name"] for engine in json.loads(files["plan.json"])["engines"]}
    found = _differing(project, files, client, engines)
    return sorted(found, key=lambda name: (condition(found[name]) == "healthy", name))


def replace_balancers(project: str, live: Path, files: Files, client: docker.DockerClient) -> None:
    """Recreate the HAProxy containers that differ, before the engines and one after the other: nginx uses the other."""
    for name in sorted(_differing(project, files, client, set(SERVICES["haproxy"])), reverse=True):
        say(f"replacing {name}")
        compose(live, "up", "--detach", "--no-deps", "--no-build", "--pull", "never", name)
        time.sleep(NEW_ADDRESS_SECONDS)


def _differing(project: str, files: Files, client: docker.DockerClient, names: Collection[str]) -> dict[str, Container]:
    wanted = service_hashes(files)
    return {
        name: part
        for name, part in containers(client, project).items()
        if name in names and part.status == "running" and part.labels.get(HASH_LABEL) != wanted.get(name)
    }


def shortages(
    plan: Plan, replaced: Collection[str], drained: frozenset[str], client: docker.DockerClient
) -> dict[str, str]:
    """Engines among the replaced that serve now -> what their pool lacks meanwhile, of those where that is too much.

    One that does not serve is replaced before them, and they are not touched unless it serves then.
    """
    running = containers(client, plan.project)
    serving = {name for name, part in running.items() if condition(part) == "healthy"} - drained
    found: dict[str, str] = {}
    for pool in plan.pools:
        up = {*pool.engines} & (serving | {*replaced}) - drained
        left = len(up) - 1
        if left < pool.least:
            found |= {name: lack(left, pool.least) for name in pool.engines if name in serving and name in replaced}
    return found


def lack(serving: int, least: int) -> str:
    """What a change costs a pool of which so many serve meanwhile, and not at least so many. Goes on with a time."""
    if not serving:
        return "no other replica serves its model meanwhile: no answers"
    return (
        f"only {serving} of the {least} replicas that max_unavailable leaves serve its model meanwhile: less capacity"
    )


def roll(
    project: str, live: Path, files: Files, engines: list[str], drained_files: Callable[[frozenset[str]], Files],
    client: docker.DockerClient, wait: Callable[[str], None],
) -> None:  # fmt: skip
    """Replace these engines one by one, with the rest of the tree already written.

    drained_files: the tree with these replicas drained. wait: returns when a service is ready. Raises StackError at
    the first that fails; the others are as they were.
    """
    plan = json.loads(files["plan.json"])
    for number, name in enumerate(engines, 1):
        say(f"replacing {name} ({number} of {len(engines)})")
        engine = next(engine for engine in plan["engines"] if engine["name"] == name)
        drained = drained_files(frozenset({name}))
        write_tree(live, drained)
        reload(project, services_of(["haproxy"]), drained, client)
        finish_requests(project, name, float(plan["gateway"]["request_timeout"]), client)
        with silenced(plan, name, engine["stop_grace"] + engine["startup_timeout"], "replaced by make up"):
            renew(live, plan, engine, client, wait)
    write_tree(live, files)
    reload(project, services_of(["haproxy"]), files, client)


def renew(
    live: Path, plan: Mapping[str, Any], engine: Mapping[str, Any], client: docker.DockerClient,
    wait: Callable[[str], None],
) -> None:  # fmt: skip
    """Start one engine as the written tree has it, and nothing else; wait for it and have it answer. Raises StackError.

    wait: as in roll().
    """
    name = engine["name"]
    compose(live, "up", "--detach", "--no-deps", "--no-build", "--pull", "never", name)
    began = time.monotonic()
    wait(name)
    remember_start(live.parent, name, time.monotonic() - began)
    if answers(engine):
        prove(plan, engine, client)


def started_within(state: Path) -> dict[str, float]:
    """Engine -> seconds that its last start took."""
    path = state / "start-seconds.json"
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def remember_start(state: Path, name: str, seconds: float) -> None:
    """Keep how long an engine took to be ready."""
    (state / "start-seconds.json").write_text(json.dumps({**started_within(state), name: round(seconds, 1)}) + "\n")


def finish_requests(project: str, name: str, limit: float, client: docker.DockerClient) -> None:
    """Wait for the requests in flight of an engine that is about to be stopped; warn of those left after the limit."""
    left = wait_until_idle(project, name, limit, client)
    if left:
        say(f"warning: {name} still works on {left:g} requests; it gets its shutdown_timeout to finish them")


def wait_until_idle(
    project: str, name: str, limit: float, client: docker.DockerClient, where: str | None = None
) -> float:
    """Wait until an engine has no request in flight; how many are left when the limit (seconds) is over.

    where: address and port of one on another host.
    """
    time.sleep(SETTLE_SECONDS)
    deadline = time.monotonic() + limit
    with step(f"{name} finishes the requests it works on"):
        while True:
            left = in_flight(project, name, client, where)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)


def in_flight(project: str, name: str, client: docker.DockerClient, where: str | None = None) -> float:
    """Requests that an engine works on or has waiting; 0 when it does not answer, as it then has none to finish."""
    part = containers(client, project).get(name)
    where = (asked_at(part) if part else None) or where
    if where is None:
        return 0.0
    try:
        text = get_page(f"http://{where}/metrics")
    except requests.RequestException:
        return 0.0
    gauges = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(gauges))


def prove(plan: Mapping[str, Any], engine: Mapping[str, Any], client: docker.DockerClient) -> None:
    """One answer of an engine, asked directly. Raises StackError."""
    try:
        ask_replica(plan, client, engine)
    except Exception as error:
        raise StackError(f"{engine['name']} is up and does not complete: {error}") from error
