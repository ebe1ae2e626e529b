"""`make up`, told as a story: gather, check, provide, render, validate, apply, verify."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import docker

from stack import api_keys, apply, certificates, image_record, preflight
from stack.adjust import drained_tree, provide_certificate, putting_back
from stack.checks import Result, run_checks
from stack.config.load import problem_at
from stack.console import say, step
from stack.docker_host import connect
from stack.downtime import refuse_downtime
from stack.engine_args import refusals
from stack.errors import InputError, StackError
from stack.gateway_client import GatewayClient
from stack.images import store
from stack.inputs import ROOT, Inputs, gather, remember
from stack.locks import only_one, taking_turns
from stack.models.fetch import ensure_models
from stack.observe import provide
from stack.ownership import ENGINE_UID, WATCH_UID, give_to
from stack.plan.types import Plan
from stack.render import REVISION, nginx_revision
from stack.secrets import engine_key, grafana
from stack.secrets.check import check as check_secrets
from stack.secrets.check import tighten
from stack.secrets.copies import MODE as COPY_MODE
from stack.secrets.copies import copies_of, hand_out, keep_only
from stack.smoke import gateway_checks, host_checks
from stack.tree import compare, write_tree
from stack.validate import validate


def up(arguments: argparse.Namespace) -> tuple[Plan, list[str]]:
    """Bring the stack up and prove it. (plan, what was started, reloaded or removed).

    Raises InputError before the first change, StackError after the running stack was put back.
    """
    inputs = gather(arguments)
    client = connect()
    with only_one(inputs.state):
        before = apply.look(inputs.config.name, inputs.live, client)
        with taking_turns(inputs.shared):
            inputs, plan, files = _provide(inputs, arguments, before, client)
        refuse_downtime(inputs.shown, inputs.state, plan, files, before, client)
        done = apply_and_prove(plan, inputs.state, files, before, client)
        certificates.keep_only(inputs.state, nginx_revision(files)["certificate"])
        _drop_old_secrets(inputs.state)
        remember(inputs, plan)
    return plan, done


def verify(state: Path, plan: Mapping[str, Any], client: docker.DockerClient) -> list[Result]:
    """The smoke test of a running plan, telling of each check on stderr."""
    gateway = local_gateway(plan, state)
    # a model whose every replica is cordoned has no answers, as a person wanted it
    served = {engine["served_model_name"] for engine in plan["engines"]}
    pools = [pool for pool in plan["pools"] if pool["served_model_name"] in served]

    def tell(result: Result) -> None:
        say(f"{result.status:7} {result.name} ({result.seconds:.2f} s) {result.detail}")

    return run_checks((*host_checks(plan, client), *(gateway_checks(gateway, pools) if pools else ())), tell)


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


def _plan_for_here(inputs: Inputs) -> Plan:
    plans = inputs.plans()
    if len(plans) != 1:
        raise InputError(inputs.shown, "this command works on one host: name it with --host")
    return plans[0]


def _provide(
    inputs: Inputs, arguments: argparse.Namespace, before: apply.Before, client: docker.DockerClient
) -> tuple[Inputs, Plan, dict[str, bytes]]:
    """Everything that the running stack does not notice: checks, images, models, secrets, and a validated tree."""
    certificates.check_own(inputs.config.gateway, ROOT, inputs.shown)
    plan = _plan_for_here(inputs)
    check_secrets(inputs.state, plan.gateway["api_keys"], inputs.config.gateway, ROOT)
    preflight.check(inputs, plan, client)
    remember(inputs, plan, failed_before=True)  # another stack must not choose the same GPUs meanwhile
    made = store.provide(
        ROOT, inputs.config.images, inputs.source, inputs.config.device, say, client, inputs.config.images_unwanted
    )
    image_record.add(inputs.shared, made)
    preflight.check_image(inputs, plan, client)
    ensure_models(inputs.config, ROOT, say, inputs.shown)
    inputs = gather(arguments)  # what just arrived has facts to check: models, and images whose digest is known now
    plan = _plan_for_here(inputs)
    _make_secrets_and_folders(inputs, plan, client)
    files = inputs.render(plan)
    rendered = inputs.build / plan.host
    write_tree(rendered, files)
    if compare(before.files, files) or not before.proven:
        with step("checking the configuration with nginx, HAProxy, promtool, amtool and Compose"):
            validate(rendered, plan.images, inputs.state, client)
        _check_flags(inputs, plan, before, client)
    return inputs, plan, files


def _make_secrets_and_folders(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> None:
    for name in api_keys.ensure_keys(inputs.state, plan.gateway["api_keys"]):
        say(f"made the API key {name!r}: {api_keys.key_file(inputs.state, name)}")
    keys = engine_key.ensure(inputs.state)
    hand_out(inputs.state, copies_of(keys), plan.images["nginx"], client)
    if "grafana" in plan.images:
        hand_out(inputs.state, grafana.ensure(inputs.state), plan.images["nginx"], client)
    tighten(inputs.state)
    provide_certificate(inputs.state, inputs.config.gateway, ROOT, plan.images["nginx"], client)
    watched = provide.for_probe(inputs.state) + provide.for_alertmanager(plan.watch, ROOT, inputs.state)
    give_to(watched, WATCH_UID, plan.images["nginx"], client, COPY_MODE)
    folders = [Path(path) for engine in plan.engines for path in (engine.cache_dir, engine.evidence_dir)]
    folders.append(inputs.state / "textfile")  # what engines count, for the node exporter
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    give_to(folders, ENGINE_UID, plan.images["nginx"], client)


def _drop_old_secrets(state: Path) -> None:
    keys = engine_key.ensure(state)
    keep_only(state, copies_of(keys))
    if keys.rotating:
        say("warning: a rotation of secrets was not finished: `make secrets-rotate` goes on with it")


def _check_flags(inputs: Inputs, plan: Plan, before: apply.Before, client: docker.DockerClient) -> None:
    applied = json.loads(before.files["plan.json"])["engines"] if before.proven else []
    known = {tuple(engine["argv"]) for engine in applied if engine["image"] == plan.images["vllm"]}
    argvs = {engine.argv: engine.served_model_name for engine in plan.engines if engine.argv not in known}
    if not argvs:
        return
    with step("checking the engines' flags with vLLM's own parser"):
        try:
            found = refusals(client, plan.images["vllm"], list(argvs))
        except StackError as error:
            say(f"warning: {error}; going on, the engines will tell")
            return
    models = {model.served_model_name: model for model in inputs.config.models}
    problems = [
        problem_at(inputs.config, models[name], "extra_args", f"vLLM refuses the flags: {what}")
        for name, what in zip(argvs.values(), found, strict=True)
        if what
    ]
    if problems:
        raise InputError(inputs.shown, problems)


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
