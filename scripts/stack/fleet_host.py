"""What a host of a fleet does with the tree that its controller sent: the plan comes with it, and is not made here.

A gateway host has no models, and one of engines not all keys: none could plan for the others. But each renders its own
tree from the plan that was sent and its own state, and refuses another.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import docker

from stack import apply, certificates, drains, kept_state, preflight
from stack.adjust import provide_certificate
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.deploy.shipped import mended_on_failure, refuse_other
from stack.docker_host import connect, containers
from stack.errors import InputError, StackError
from stack.hardware import is_fleet, load_hosts
from stack.images.source import source_of
from stack.inputs import ROOT, Inputs
from stack.lifecycle import apply_and_prove
from stack.locks import only_one, taking_turns
from stack.observe import provide, user_files
from stack.plan.types import Plan, plan_from
from stack.prepare import check_tree, make_folders, make_present, provide_for_watching
from stack.render import render
from stack.replica import keep, kept_folder, put_back_one, renew_one, stop_one
from stack.roll import to_replace
from stack.secrets import engine_key, grafana, handed
from stack.secrets.check import check as check_secrets
from stack.secrets.check import tighten
from stack.secrets.copies import Copy, copies_of, hand_out, keep_only
from stack.smoke import services

ACTIONS = ("prepare", "start", "replace", "stop", "back", "retire")


def is_one(arguments: argparse.Namespace) -> bool:
    """Whether a command is about a host of a fleet."""
    return arguments.hosts is not None and is_fleet(load_hosts(arguments.hosts))


def up(arguments: argparse.Namespace) -> tuple[Plan, list[str]]:
    """Apply the tree that was sent and prove it. Its engines were started or replaced by act() before.

    Raises InputError before the first change, StackError after what ran was put back.
    """
    inputs, plan, client = begin(arguments)
    with only_one(inputs.state, arguments.wait), mended_on_failure(arguments.shipped, inputs.live):
        # what the deploy has taken out of its pools is in the new ones, or gone
        drains.save_replacing(inputs.state, ())
        before = apply.look(plan.project, inputs.live, client)
        with taking_turns(inputs.shared):
            files = _prepare(inputs, plan, arguments.shipped, before, client)
        left = to_replace(plan.project, files, client)
        if left:
            raise StackError(f"{', '.join(left)} are not as they are wanted yet, which is done before: deploy again")
        done = apply_and_prove(plan, inputs.state, files, before, client)
        _drop_what_is_over(plan, inputs.state, kept_certificate(inputs, plan))
    return plan, done


def act(arguments: argparse.Namespace) -> list[str]:
    """One of ACTIONS; what was done. Raises InputError before the first change, StackError.

    prepare: all that what runs does not notice. start, replace, stop: arguments.engine. back: as it was before this
    deploy, of a replica that spans hosts and did not come up. retire: stop what has no place here any more.
    """
    inputs, plan, client = begin(arguments)
    with only_one(inputs.state, arguments.wait), mended_on_failure(arguments.shipped, inputs.live):
        before = apply.look(plan.project, inputs.live, client)
        if arguments.action == "retire":
            return [stop_one(plan, name, client) for name in _without_place(plan, client)]
        if arguments.action == "stop":
            keep(inputs.state, before.files)
            return [stop_one(plan, arguments.engine, client)]
        if arguments.action == "back":
            return [put_back_one(plan, inputs.state, arguments.engine, client)]
        if arguments.action == "prepare":
            with taking_turns(inputs.shared):
                _prepare(inputs, plan, arguments.shipped, before, client)
            return []
        files = rendered(inputs, plan, arguments.shipped)
        return [renew_one(plan, inputs.state, files, arguments.engine, client)]


def begin(arguments: argparse.Namespace) -> tuple[Inputs, Plan, docker.DockerClient]:
    """What is needed of the inputs, the plan that was sent, and Docker's client."""
    shown = str(arguments.stack)
    config = load_config(arguments.stack, shown)
    path = arguments.shipped / "plan.json"
    try:
        plan = plan_from(json.loads(path.read_text()))
    except FileNotFoundError:
        raise InputError(str(path), "nothing was sent to this host yet: `make deploy` on its controller") from None
    except (ValueError, TypeError, KeyError):
        raise StackError(f"{path} is damaged or of another version: deploy again") from None
    if plan.fleet is None or plan.host != arguments.host:
        raise InputError(str(path), f"it is of host {plan.host!r}, and {arguments.host!r} of a fleet is asked for")
    source = source_of(config.images, arguments.stack, ROOT, Path(plan.state_dir) / "images.yaml")
    hosts = load_hosts(arguments.hosts)
    built = not plan.nginx_loads_modules
    inputs = Inputs(shown, config, hosts, source, dict(plan.images), built, {}, frozenset(), {}, {})
    return inputs, plan, connect()


def _prepare(
    inputs: Inputs, plan: Plan, shipped: Path, before: apply.Before, client: docker.DockerClient
) -> dict[str, bytes]:
    """Make everything present that this host needs; the validated tree. Raises StackError."""
    assert plan.fleet
    roles = plan.fleet.roles
    handed.require(inputs.state, plan)
    if "gateway" in roles:
        certificates.check_own(inputs.config.gateway, ROOT, inputs.shown)
        if certificates.current(inputs.state, inputs.config.gateway, ROOT) is None:
            raise StackError(f"the gateway's certificate is not in {inputs.state / 'tls'}: deploy again")
    if "observability" in roles:
        user_files.read({**plan.watch, "rules": ()}, ROOT, inputs.shown)
    check_secrets(inputs.state, plan.gateway["api_keys"], inputs.config.gateway, ROOT)
    preflight.check(inputs, plan, client)
    make_present(inputs, _served_here(inputs.config, plan), plan, client)
    _provide(inputs, plan, client)
    files = rendered(inputs, plan, shipped)
    check_tree(inputs, plan, files, before, client)
    return files


def _served_here(config: StackConfig, plan: Plan) -> StackConfig:
    served = {engine.served_model_name for engine in (*plan.engines, *plan.cordoned)}
    models = tuple(model for model in config.models if model.served_model_name in served)
    return config.model_copy(update={"models": models})


def _provide(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> None:
    """Files of each container's own, of the secrets that were handed out."""
    assert plan.fleet
    state, image = inputs.state, plan.images["nginx"]
    hand_out(state, _copies(plan, state), image, client)
    if "grafana" in plan.fleet.services:
        hand_out(state, grafana.ensure(state), image, client)  # no other host has one
    tighten(state)
    if "gateway" in plan.fleet.roles:
        provide_certificate(state, inputs.config.gateway, ROOT, image, client)
    if "observability" in plan.fleet.roles:
        provide.trust(state, kept_certificate(inputs, plan) or "")
        provide_for_watching(state, plan, client)
    make_folders(state, plan, client)


def _copies(plan: Plan, state: Path) -> list[Copy]:
    assert plan.fleet
    keys = engine_key.load(state)
    return handed.for_roles(copies_of(keys), plan.fleet.roles) if keys else []


def kept_certificate(inputs: Inputs, plan: Plan) -> str | None:
    """Name of the gateway's pair on a gateway host; on that of Prometheus of the certificate that was handed out last.

    Raises StackError where it is not there.
    """
    assert plan.fleet
    if "gateway" in plan.fleet.roles:
        return certificates.current(inputs.state, inputs.config.gateway, ROOT)
    if "observability" not in plan.fleet.roles:
        return None
    found = sorted((inputs.state / "tls").glob("*.crt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise StackError(f"the gateway's certificate is not in {inputs.state / 'tls'}: deploy again")
    return found[-1].stem


def rendered(inputs: Inputs, plan: Plan, shipped: Path) -> dict[str, bytes]:
    certificate = certificates.current(inputs.state, inputs.config.gateway, ROOT)
    state = kept_state.load(inputs.state, plan.gateway["api_keys"], certificate)
    # what a deploy has out while it replaces it is no part of the tree
    files = render(plan, replace(state, drained=drains.drained(inputs.state)), ROOT)
    refuse_other(shipped, files)
    return files


def _without_place(plan: Plan, client: docker.DockerClient) -> list[str]:
    return sorted(containers(client, plan.project).keys() - set(services(plan.as_dict())))


def _drop_what_is_over(plan: Plan, state: Path, certificate: str | None) -> None:
    keep_only(state, _copies(plan, state))
    if certificate:
        certificates.keep_only(state, certificate)
    shutil.rmtree(kept_folder(state), ignore_errors=True)
