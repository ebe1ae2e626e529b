"""`make up`, told as a story: gather, check, provide, render, validate, apply, verify."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import docker

from stack import api_keys, apply, certificates
from stack.adjust import drained_tree, putting_back
from stack.checks import Result, run_checks
from stack.console import say
from stack.deploy.activation import Activation, no_release
from stack.deploy.shipped import mended_on_failure
from stack.docker_host import connect
from stack.downtime import refuse_downtime
from stack.errors import StackError
from stack.gateway_client import GatewayClient
from stack.inputs import ROOT, gather, remember
from stack.locks import only_one, taking_turns
from stack.plan.types import Plan
from stack.prepare import prepare
from stack.render import REVISION, nginx_revision
from stack.secrets import engine_key
from stack.secrets.copies import copies_of, keep_only
from stack.smoke import behind, gateway_checks, host_checks, services


def up(arguments: argparse.Namespace, activation: Activation | None = None) -> tuple[Plan, list[str]]:
    """Bring the stack up and prove it. (plan, what was started, reloaded or removed).

    activation: the release on a host that this brings up. Raises InputError before the first change, StackError after
    the running stack was put back.
    """
    inputs = gather(arguments)
    client = connect()
    noted = activation.going_on(inputs.live, inputs.state / "shipped") if activation else nullcontext(no_release)
    with only_one(inputs.state, arguments.wait), mended_on_failure(arguments.shipped, inputs.live), noted as finish:
        before = apply.look(inputs.config.name, inputs.live, client)
        with taking_turns(inputs.shared):
            inputs, plan, files = prepare(inputs, arguments, before, client)
        refuse_downtime(inputs.shown, inputs.state, plan, files, before, client)
        done = apply_and_prove(plan, inputs.state, files, before, client)
        certificates.keep_only(inputs.state, nginx_revision(files)["certificate"])
        _drop_old_secrets(inputs.state)
        remember(inputs, plan)
        finish(plan, files, inputs.config, inputs.archive, client)
    return plan, done


def verify(state: Path, plan: Mapping[str, Any], client: docker.DockerClient) -> list[Result]:
    """The smoke test of a running plan, telling of each check on stderr."""
    # a model whose every replica is cordoned has no answers, as a person wanted it
    served = set(behind(plan))
    pools = [pool for pool in plan["pools"] if served & set(pool["engines"])] if "nginx" in services(plan) else []

    def tell(result: Result) -> None:
        say(f"{result.status:7} {result.name} ({result.seconds:.2f} s) {result.detail}")

    clients = gateway_checks(local_gateway(plan, state), pools) if pools else ()
    return run_checks((*host_checks(plan, client), *clients), tell)


def gateway_url(plan: Mapping[str, Any]) -> str:
    """Where the gateway of a plan answers on this host, under the name in its certificate."""
    return f"https://{plan['gateway']['server_name']}:{plan['gateway']['https_port']}"


def gateway_address(plan: Mapping[str, Any]) -> str:
    """IPv4 address that the gateway of a plan listens on, as seen from this host."""
    listen = next(entry["address"] for entry in plan["published"] if entry["service"] == "nginx")
    return "127.0.0.1" if listen == "0.0.0.0" else str(listen)


def local_gateway(plan: Mapping[str, Any], state: Path) -> GatewayClient:
    """A client of this host's gateway, with the first API key of the plan."""
    key = api_keys.key_file(state, plan["gateway"]["api_keys"][0]).read_text().strip()
    name = nginx_revision({REVISION: (state / "live" / REVISION).read_bytes()})["certificate"]
    return GatewayClient(
        f"https://{gateway_address(plan)}:{plan['gateway']['https_port']}", key,
        ca_file=certificates.certificate_file(state, name),
        server_name=plan["gateway"]["server_name"],
    )  # fmt: skip


def _drop_old_secrets(state: Path) -> None:
    keys = engine_key.ensure(state)
    keep_only(state, copies_of(keys))
    if keys.rotating:
        say("warning: a rotation of secrets was not finished: `make secrets-rotate` goes on with it")


def apply_and_prove(
    plan: Plan, state: Path, files: Mapping[str, bytes], before: apply.Before, client: docker.DockerClient
) -> list[str]:
    """A validated tree onto this host, and proven; what was started, reloaded or removed.

    Raises StackError after what ran before was put back.
    """
    live = state / "live"
    with putting_back(plan.project, state, ROOT, files, before, client):
        done = apply.bring_up(
            plan.project, live, files, before, client, partial(drained_tree, plan, state, ROOT, files)
        )
        failed = [result for result in verify(state, plan.as_dict(), client) if result.failed]
        if failed:
            lines = [f"  {result.name}: {result.detail}\n    next: {result.look}" for result in failed]
            raise StackError("\n".join([f"the stack is up, but {len(failed)} checks failed", *lines]))
    apply.mark_proven(live, files)
    return done
