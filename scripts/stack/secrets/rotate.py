"""New secrets for old ones, on a running stack, without a failed request.

The engines' key in three steps: engines take the new one beside the old one, HAProxy sends the new one, engines take
nothing else. Each step is written down before it is done and proven before the next, so a command that was cut off
is finished by the next one. A secret that joins gets steps of its own here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import docker

from stack import adjust, apply, kept_state
from stack.console import say, step
from stack.downtime import refuse_downtime
from stack.errors import InputError
from stack.inputs import ROOT, Place
from stack.lifecycle import apply_and_prove
from stack.observe import provide
from stack.ownership import WATCH_UID, give_to
from stack.plan.types import Plan
from stack.render import nginx_revision, render
from stack.secrets import engine_key
from stack.secrets.copies import MODE as COPY_MODE
from stack.secrets.copies import copies_of, hand_out, keep_only
from stack.secrets.engine_key import EngineKeys
from stack.tree import compare, write_tree
from stack.validate import validate

TOLD = {
    1: "engines take the new key beside the old one",
    2: "HAProxy sends the new key",
    3: "engines take the new key and no other",
}


def rotate(place: Place, shown: str, client: docker.DockerClient) -> str:
    """Rotate, or finish a rotation; what was done. Raises InputError before the first change.

    shown: the stack file's name in messages. Raises StackError after a step that failed was taken back; the same
    command goes on with that step.
    """
    keys = engine_key.load(place.state)
    plan = adjust.applied(place.live)
    before = apply.look(place.project, place.live, client)
    if plan.fleet:
        raise InputError(shown, "the engines' key of a fleet is the same on all of its hosts: docs/fleet.md")
    if keys is None:
        raise InputError(str(engine_key.key_file(place.state)), "there is no key of the engines yet: `make up`")
    if not before.running:
        return _while_stopped(place.state, plan, client)
    if keys.rotating:
        say("going on with a rotation that was not finished")
        _take(place, plan, keys, client)
    else:
        _check_first(place, shown, plan, keys, before, client)
        keys = engine_key.begin(keys)
        _take(place, plan, keys, client)
    while following := keys.next_step():
        keys = following
        _take(place, plan, keys, client)
    engine_key.save(place.state, replace(keys, rotating=False))
    keep_only(place.state, copies_of(keys))
    return "The engines and HAProxy use a new key; the old one is worth nothing."


def _while_stopped(state: Path, plan: Plan, client: docker.DockerClient) -> str:
    keys = engine_key.new_keys()
    hand_out(state, copies_of(keys), plan.images["nginx"], client)
    engine_key.save(state, keys)
    return "Nothing runs: there is a new key, and `make up` starts the engines with it."


def _check_first(
    place: Place, shown: str, plan: Plan, keys: EngineKeys, before: apply.Before, client: docker.DockerClient
) -> None:
    if compare(before.files, _files(place, plan, keys, before)):
        raise InputError(shown, "what is applied is not what this version would apply: `make up` first")
    refuse_downtime(
        shown, place.state, plan, _files(place, plan, engine_key.begin(keys), before), before, client
    )  # fmt: skip


def _take(place: Place, plan: Plan, keys: EngineKeys, client: docker.DockerClient) -> None:
    """One step: written down, validated, applied, proven."""
    say(f"{keys.step} of 3: {TOLD[keys.step]}")
    # in this order: what is written down can be rendered by any command from then on, and names these copies
    hand_out(place.state, copies_of(keys), plan.images["nginx"], client)
    engine_key.save(place.state, keys)
    give_to(provide.engines_key(place.state), WATCH_UID, plan.images["nginx"], client, COPY_MODE)
    before = apply.look(place.project, place.live, client)
    files = _files(place, plan, keys, before)
    write_tree(place.state / "checked", files)
    validate(place.state / "checked", plan.images, place.state, client)
    apply_and_prove(plan, place.state, files, before, client)
    if keys.step == 2:
        # what HAProxy had taken up before goes to an engine with the old key
        with step("requests that wait in a queue are let through"):
            time.sleep(max(pool.queue_timeout for pool in plan.pools))


def _files(place: Place, plan: Plan, keys: EngineKeys, before: apply.Before) -> dict[str, bytes]:
    """The applied tree, with these keys: what else the stack file may say by now is left to `make up`."""
    certificate = nginx_revision(before.files)["certificate"]
    engines, haproxy = engine_key.names(keys)
    kept = kept_state.load(place.state, plan.gateway["api_keys"], certificate)
    rendered = render(plan, replace(kept, engine_keys=engines, haproxy_key=haproxy), ROOT)
    return adjust.replaced(before.files, rendered, lambda path: adjust.is_gateways(path) or path == "compose.yaml")
