"""What a host of a fleet does with the tree that its controller sent: the plan comes with it, and is not made here.

A gateway host has no models, and one of engines not all keys: none could plan for the others. But each renders its own
tree from the plan that was sent and its own state, and refuses another.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import docker

from stack import apply, drains
from stack.config.folders import state_dir
from stack.config.load import load_config
from stack.deploy.activation import Activation, noted
from stack.deploy.place import place_here, tree_of
from stack.deploy.shipped import mended_on_failure
from stack.docker_host import connect, containers
from stack.errors import InputError, StackError
from stack.fleet_prepare import drop_what_is_over, kept_certificate, prepare, rendered, rendered_now, served_here
from stack.hardware import is_fleet, load_hosts
from stack.images.source import source_of
from stack.inputs import ROOT, Inputs
from stack.lifecycle import apply_and_prove
from stack.locks import only_one, taking_turns
from stack.plan.types import Plan, plan_from
from stack.replica import keep, put_back_one, renew_one, stop_one
from stack.roll import to_replace
from stack.smoke import services
from stack.tree import write_tree

ACTIONS = ("prepare", "start", "replace", "stop", "back", "retire")


def is_one(arguments: argparse.Namespace) -> bool:
    """Whether a command is about a host of a fleet."""
    return arguments.hosts is not None and is_fleet(load_hosts(arguments.hosts))


def up(arguments: argparse.Namespace, activation: Activation) -> tuple[Plan, list[str]]:
    """Apply the tree that was sent and prove it; it is then recorded. Its engines were done by act() before.

    arguments.kept: the record of a release that is gone back to. Raises InputError before the first change, StackError
    after what ran was put back.
    """
    inputs, plan, client = begin(arguments)
    sent = arguments.shipped
    noted_while = activation.going_on(inputs.live, sent)
    with only_one(inputs.state, arguments.wait), mended_on_failure(sent, inputs.live), noted_while as finish:
        # what the deploy has taken out of its pools is in the new ones, or gone
        drains.save_replacing(inputs.state, ())
        before = apply.look(plan.project, inputs.live, client)
        with taking_turns(inputs.shared):
            files = prepare(inputs, plan, sent, before, client, kept=arguments.kept is not None)
        left = to_replace(plan.project, files, client)
        if left:
            raise StackError(f"{', '.join(left)} are not as they are wanted yet, which is done before: deploy again")
        done = apply_and_prove(plan, inputs.state, files, before, client)
        drop_what_is_over(plan, inputs.state, kept_certificate(inputs, plan))
        finish(plan, files, served_here(inputs.config, plan), None, client)
    return plan, done


def act(arguments: argparse.Namespace) -> list[str]:
    """One of ACTIONS; what was done. Raises InputError before the first change, StackError.

    prepare: all that what runs does not notice. start, replace, stop: arguments.engine. back: as it was before this
    deploy, of a replica that spans hosts and did not come up. retire: stop what has no place here any more.
    """
    inputs, plan, client = begin(arguments)
    with only_one(inputs.state, arguments.wait), mended_on_failure(arguments.shipped, inputs.live):
        if arguments.action == "retire":
            return [stop_one(plan, name, client) for name in _without_place(plan, client)]
        before = apply.look(plan.project, inputs.live, client)
        if arguments.action == "prepare":
            if arguments.again:
                write_tree(arguments.shipped, rendered_now(inputs, plan))
            with taking_turns(inputs.shared):
                prepare(inputs, plan, arguments.shipped, before, client, kept=arguments.again)
            return []
        with noted(place_here(inputs.state), ROOT.name, inputs.live):
            if arguments.action == "stop":
                keep(inputs.state, before.files)
                return [stop_one(plan, arguments.engine, client)]
            if arguments.action == "back":
                return [put_back_one(plan, inputs.state, arguments.engine, client)]
            files = rendered(inputs, plan, arguments.shipped)
            return [renew_one(plan, inputs.state, files, arguments.engine, client)]


def begin(arguments: argparse.Namespace) -> tuple[Inputs, Plan, docker.DockerClient]:
    """What is needed of the inputs, the plan that was sent, and Docker's client.

    arguments.again: the plan is the one that was kept of this release when it was last applied here.
    """
    shown = str(arguments.stack)
    config = load_config(arguments.stack, shown)
    again = arguments.again and tree_of(state_dir(config, ROOT), ROOT.name)
    path = (again or arguments.shipped) / "plan.json"
    try:
        plan = plan_from(json.loads(path.read_text()))
    except FileNotFoundError:
        what = "it was not kept of this release" if again else "nothing was sent to this host yet"
        raise InputError(str(path), f"{what}: `make deploy` on its controller") from None
    except (ValueError, TypeError, KeyError):
        raise StackError(f"{path} is damaged or of another version: deploy again") from None
    if plan.fleet is None or plan.host != arguments.host:
        raise InputError(str(path), f"it is of host {plan.host!r}, and {arguments.host!r} of a fleet is asked for")
    source = source_of(config.images, arguments.stack, ROOT, Path(plan.state_dir) / "images.yaml")
    hosts = load_hosts(arguments.hosts)
    built = not plan.nginx_loads_modules
    inputs = Inputs(shown, config, hosts, source, dict(plan.images), built, {}, frozenset(), {}, {})
    return inputs, plan, connect()


def _without_place(plan: Plan, client: docker.DockerClient) -> list[str]:
    return sorted(containers(client, plan.project).keys() - set(services(plan.as_dict())))
