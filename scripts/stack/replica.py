"""One engine of a host of a fleet: started, replaced or stopped by the deploy that has taken it out of its pools.

The rest of the host is not touched, nor are the files of its other parts: those are applied when every engine is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import DockerException

from stack.adjust import replaced
from stack.apply import startup_timeouts, wait_ready
from stack.console import say, step
from stack.docker_host import HASH_LABEL, containers
from stack.effects import service_hashes
from stack.errors import StackError
from stack.plan.types import Plan
from stack.roll import finish_requests, renew
from stack.tree import read_tree, write_tree

Files = Mapping[str, bytes]


def renew_one(plan: Plan, state: Path, files: Files, name: str, client: docker.DockerClient) -> str:
    """Start an engine as these files have it, in the place of the one that runs; what was done.

    plan, files: what the controller sent. Raises StackError after the engine that ran was put back, with the state that
    everything is in.
    """
    live, before = state / "live", read_tree(state / "live")
    part = containers(client, plan.project).get(name)
    ran = part.labels.get(HASH_LABEL) if part and part.status == "running" else None
    # Another engine of this host may have been replaced by now: what this one was made from is then in the kept tree.
    keep(state, before)
    previous = _tree_of(name, ran, (before, read_tree(kept_folder(state))))
    if ran:
        _finish(plan, name, client)
    try:
        _renew(plan, live, engines_part(before, files), name, client)
    except BaseException as error:
        outcome = _put_back(plan, live, previous, before, name, client, ran is not None)
        if isinstance(error, StackError):
            raise StackError(f"{error}\n{outcome}") from None
        say(outcome)
        raise
    return f"{'replaced' if ran else 'started'} {name}"


def stop_one(plan: Plan, name: str, client: docker.DockerClient) -> str:
    """Stop an engine that gets no new request, when it has done those that it works on; what was done."""
    part = containers(client, plan.project).get(name)
    if part is None:
        return f"{name} does not run"
    _finish(plan, name, client)
    with step(f"stopping {name}"):
        part.stop(timeout=None)
        part.remove()
    return f"stopped {name}"


def put_back_one(plan: Plan, state: Path, name: str, client: docker.DockerClient) -> str:
    """An engine as it was before this deploy, or stopped where it was not there; what was done. Of a replica that spans
    hosts: what ran was stopped on purpose, before another part failed. Raises StackError.
    """
    kept = read_tree(kept_folder(state))
    told = json.loads(kept["plan.json"]) if kept else {"engines": []}
    engine = next((each for each in told["engines"] if each["name"] == name), None)
    if engine is None:
        return stop_one(plan, name, client)
    write_tree(state / "live", engines_part(read_tree(state / "live"), kept))
    renew(state / "live", told, engine, client, partial(wait_ready, plan.project, {**startup_timeouts(kept)}, client))
    return f"{name} is as it was before"


def keep(state: Path, before: Files) -> None:
    """The tree that ran before this deploy, kept until its end: engines that are still to be replaced go back to it."""
    if before and not read_tree(kept_folder(state)):
        write_tree(kept_folder(state), before)


def kept_folder(state: Path) -> Path:
    """Where it is kept."""
    return state / "before-deploy"


def engines_part(before: Files, files: Files) -> dict[str, bytes]:
    """The applied tree with what engines are made from as it was sent. Gateway and Prometheus keep theirs until it is
    their turn, and so does the plan that a change of the gateway is rendered from.
    """
    return replaced(before, files, _is_engines) if before else dict(files)


def _is_engines(path: str) -> bool:
    return path in ("compose.yaml", ".env") or path.startswith("compose/")


def _finish(plan: Plan, name: str, client: docker.DockerClient) -> None:
    finish_requests(plan.project, name, float(plan.gateway["request_timeout"]), client)


def _renew(plan: Plan, live: Path, files: Files, name: str, client: docker.DockerClient) -> None:
    told: dict[str, Any] = plan.as_dict()
    engine = next(engine for engine in told["engines"] if engine["name"] == name)
    write_tree(live, files)
    limits = {name: float(engine["startup_timeout"])}
    renew(live, told, engine, client, partial(wait_ready, plan.project, limits, client))


def _tree_of(name: str, wanted: str | None, trees: Iterable[Files]) -> Files | None:
    """The first tree that has this engine as it ran."""
    return next((tree for tree in trees if wanted and tree and service_hashes(tree).get(name) == wanted), None)


def _put_back(
    plan: Plan, live: Path, previous: Files | None, before: Files, name: str, client: docker.DockerClient, ran: bool
) -> str:  # fmt: skip
    """Undo renew_one(). Never raises but for an interrupt: says what state the engine is in."""
    try:
        if not ran:
            part = containers(client, plan.project).get(name)
            if part is not None:
                part.stop(timeout=None)
                part.remove()
            if before:
                write_tree(live, before)
            return f"{name} did not run before, so it is stopped again."
        if previous is None:
            return f"{name} could NOT be put back: the files that it was made from are gone. Deploy again."
        say(f"putting {name} back as it was")
        write_tree(live, previous)
        told = json.loads(previous["plan.json"])
        engine = next((each for each in told["engines"] if each["name"] == name), None)
        if engine is None:  # it was started by a deploy that did not come to its end
            engine = next(each for each in plan.as_dict()["engines"] if each["name"] == name)
        wait = partial(wait_ready, plan.project, {**startup_timeouts(previous)}, client)
        renew(live, told, engine, client, wait)
    except (StackError, OSError, DockerException, requests.RequestException) as error:
        return f"{name} could NOT be put back: {error}"
    return f"{name} was put back as it was before and answers."
