"""A GPU out of use, or back: its replicas are drained and stopped, every other one serves on untouched.

Works from what is applied here and never asks the driver: a GPU that is to be cordoned may hang it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.errors import DockerException

from stack import cordons, kept_state
from stack.adjust import applied, putting_back
from stack.apply import look, mark_proven, startup_timeouts, wait_ready
from stack.console import say, step
from stack.docker_host import compose, condition, containers
from stack.drains import drained
from stack.errors import InputError, Problem, StackError
from stack.inputs import Place
from stack.plan.types import Plan
from stack.reload import reload, services_of
from stack.render import MANIFEST, manifest, nginx_revision, render
from stack.roll import prove, wait_until_idle
from stack.tree import compare, write_tree
from stack.validate import validate
from stack.yaml_input import parsed

COMPOSE, HAPROXY = "compose.yaml", "haproxy/haproxy.cfg"


@dataclass(frozen=True)
class Outcome:
    """What a change did: replicas that are not run any more, and those that run again. left: requests cut off."""

    stopped: tuple[str, ...]
    started: tuple[str, ...]
    left: float = 0.0


def cordon(place: Place, gpu: str, root: Path, client: docker.DockerClient, *, gap: bool, timeout: float) -> Outcome:
    """Take a GPU out of use. gap: also where a model is left without a replica. timeout: seconds to drain.

    Raises InputError before the first change.
    """
    plan, known = applied(place.live), cordons.cordoned(place.state)
    on_it = {engine.name for engine in (*plan.engines, *plan.cordoned) if gpu in engine.gpus}
    if not on_it and gpu not in plan.gpus_unused:
        raise InputError("GPU", f"{gpu!r} is no GPU of this stack; {gpus_told(plan)}")
    after = cordons.without_gpus(plan, known | {gpu})
    if not gap:
        _refuse_gap(place, gpu, plan, after, client)
    cordons.save(place.state, known | {gpu})  # first: what is cut off from here on, `make up` finishes
    return change(place, plan, after, root, client, timeout)


def uncordon(place: Place, gpu: str, root: Path, client: docker.DockerClient) -> Outcome:
    """Use a GPU again; its replicas are started and asked for a completion. Raises StackError: it stays cordoned."""
    plan, known = applied(place.live), cordons.cordoned(place.state)
    if gpu not in known:
        raise InputError("GPU", f"{gpu!r} is not cordoned; there are: {', '.join(sorted(known)) or 'none'}")
    cordons.save(place.state, known - {gpu})
    try:
        return change(place, plan, cordons.without_gpus(plan, known - {gpu}), root, client)
    except BaseException:
        cordons.save(place.state, known)
        raise


def change(
    place: Place, plan: Plan, after: Plan, root: Path, client: docker.DockerClient, timeout: float = 0.0
) -> Outcome:
    """From the applied plan to one that differs only in the engines that are run."""
    before = look(place.project, place.live, client)
    files = tree_after(before.files, plan, after, place.state, root)
    here, parts = {engine.name for engine in plan.engines}, containers(client, place.project)
    stopped = [engine.name for engine in after.cordoned if engine.name in parts]  # also of a run that was cut off
    begun = [engine.name for engine in after.engines if engine.name not in here]
    proven = before.proven
    if compare(before.files, files):
        check = place.state / "checked"
        write_tree(check, files)
        validate(check, plan.images, place.state, client)
        needed = services_of(sorted({one.unit for one in compare(before.files, files) if one.needs == "reload"}))
        if begun and before.running:
            with putting_back(place.project, place.state, root, files, before, client):
                _start(place, before.files, files, begun, client)
                reload(place.project, needed, files, client)
        else:
            write_tree(place.live, files)
            proven = proven and _reloaded(place.project, needed, files, client)
    left = sum(_stop(place.project, name, timeout, client) for name in stopped)
    if proven:
        mark_proven(place.live, files)
    return Outcome(tuple(stopped), tuple(begun) if before.running else (), left)


def tree_after(before: Mapping[str, bytes], plan: Plan, after: Plan, state: Path, root: Path) -> dict[str, bytes]:
    """The applied tree with exactly that changed which differs between the two plans.

    The checkout may be newer than what is applied: then the service list alone is changed in its Compose file, as a
    newer template would have the other engines replaced.
    """
    kept = kept_state.load(state, plan.gateway["api_keys"], nginx_revision(before)["certificate"])
    old, new = render(plan, kept, root), render(after, kept, root)
    files = dict(before)
    for path in (old.keys() | new.keys()) - {MANIFEST}:
        if old.get(path) == new.get(path):
            continue
        if path not in new:
            files.pop(path, None)
        elif path == COMPOSE and before.get(path) != old[path]:
            files[path] = _services_of(before[path], new[path])
        else:
            files[path] = new[path]
    return {**files, MANIFEST: manifest(files)}


def gpus_told(plan: Plan) -> str:
    """For a message: which GPUs there are, and who is on them."""
    on = [f"{gpu} ({engine.name})" for engine in (*plan.engines, *plan.cordoned) for gpu in engine.gpus]
    on += [f"{gpu} (free)" for gpu in plan.gpus_unused]
    return f"there are: {', '.join(on)}" if on else "it runs on the CPU: `make drain REPLICA=...` takes a replica out"


def _services_of(applied_compose: bytes, wanted: bytes) -> bytes:
    document, other = parsed(applied_compose), parsed(wanted)
    services: dict[str, Any] = document["services"]
    kept = {name: service for name, service in services.items() if name in other["services"]}
    document["services"] = {**other["services"], **kept}
    return yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True).encode()


def _refuse_gap(place: Place, gpu: str, plan: Plan, after: Plan, client: docker.DockerClient) -> None:
    running, out = containers(client, place.project), drained(place.state)
    serving = {name for name, part in running.items() if condition(part) == "healthy"} - out
    left = serving & {engine.name for engine in after.engines}
    problems = [
        Problem(
            pool.served_model_name,
            "no other replica serves it; with ALLOW_DOWNTIME=1 the GPU is cordoned anyway, and requests get 503",
        )
        for pool in plan.pools
        if (serving & {*pool.engines} and not left & {*pool.engines})
        or not {*pool.engines} & {engine.name for engine in after.engines}
    ]
    if problems:
        raise InputError(gpu, problems)


def _start(
    place: Place, before: Mapping[str, bytes], files: Mapping[str, bytes], names: list[str], client: docker.DockerClient
) -> None:
    """Start engines that HAProxy does not know yet, and have each complete: then it may get requests."""
    hidden = {**files, HAPROXY: before[HAPROXY]}
    write_tree(place.live, {**hidden, MANIFEST: manifest(hidden)})
    compose(place.live, "up", "--detach", "--no-deps", "--no-build", "--pull", "never", *names)
    plan = json.loads(files["plan.json"])
    for engine in plan["engines"]:
        if engine["name"] in names:
            wait_ready(place.project, startup_timeouts(files), client, only=engine["name"])
            prove(plan, engine, client)
    write_tree(place.live, files)


def _reloaded(project: str, parts: list[str], files: Mapping[str, bytes], client: docker.DockerClient) -> bool:
    try:
        reload(project, parts, files, client)
    except StackError as error:
        # going back would start on the bad GPU what a person wants to stop there
        say(f"warning: {error}\nGoing on: HAProxy sees by itself, within 12 s, that a stopped replica is gone.")
        return False
    return True


def _stop(project: str, name: str, timeout: float, client: docker.DockerClient) -> float:
    """Requests that were cut off. Never put back when it fails: the replica is out of its pool already."""
    left = wait_until_idle(project, name, timeout, client)
    part = containers(client, project).get(name)
    if part is None:
        return 0.0
    try:
        with step(f"stopping {name}"):
            part.stop(timeout=None)
            part.remove()
    except DockerException as error:
        raise StackError(
            f"{name} gets no requests any more, but its container could not be stopped: {error}\n"
            "A process that waits for a lost GPU cannot be killed: only a reboot ends it. The cordon stays."
        ) from None
    return left
