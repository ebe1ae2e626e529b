"""`make up`, told as a story: gather, check, provide, render, validate, apply, verify."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker

from stack import apply, credentials, image_store, preflight
from stack.config import problem_at
from stack.console import say, step
from stack.docker_host import compose, connect
from stack.engine_args import refusals
from stack.errors import InputError, StackError
from stack.fetch import ensure_models
from stack.gateway_client import GatewayClient
from stack.inputs import ROOT, Inputs, gather, remember
from stack.ownership import ENGINE_UID, NGINX_UID, give_to
from stack.plan import Plan
from stack.smoke import Result, gateway_checks, host_checks, run_checks
from stack.tree import Change, compare, read_tree, write_tree
from stack.validate import validate


def up(arguments: argparse.Namespace) -> tuple[Plan, list[str]]:
    """Bring the stack up and prove it. (plan, what was started, reloaded or removed).

    Raises InputError before the first change, StackError after the running stack was put back.
    """
    inputs = gather(arguments)
    plan = _plan_for_here(inputs)
    client = connect()
    with apply.only_one(inputs.state):
        credentials.check_certificate(inputs.config.gateway, ROOT, inputs.shown)
        preflight.check(inputs, plan, client)
        image_store.ensure(inputs.images, inputs.source, ROOT, say, client)
        ensure_models(inputs.config, ROOT, say)
        inputs = gather(arguments)  # models that just arrived have facts to check
        plan = _plan_for_here(inputs)
        reloads = _provide(inputs, plan, client)
        files = inputs.render(plan)
        rendered = inputs.build / plan.host
        write_tree(rendered, files)
        old = read_tree(inputs.live)
        changes = compare(old, files)
        if changes:
            with step("checking the configuration with nginx, HAProxy, promtool, amtool and Compose"):
                validate(rendered, plan.images, inputs.state / "tls", client)
            _check_flags(inputs, plan, inputs.live)
        done = _apply(plan, inputs.live, old, files, changes, reloads, client)
        remember(inputs, plan)
    return plan, done


def verify(state: Path, live: Path, client: docker.DockerClient) -> list[Result]:
    """The smoke test of the applied stack, telling of each check on stderr."""
    plan = applied_plan(live)
    gateway = local_gateway(plan, state)
    models = [pool["served_model_name"] for pool in plan["pools"]]

    def tell(result: Result) -> None:
        say(f"{result.status:7} {result.name} ({result.seconds:.2f} s) {result.detail}")

    return run_checks((*host_checks(plan, client), *gateway_checks(gateway, models)), tell)


def applied_plan(live: Path) -> dict[str, Any]:
    """plan.json of what is applied here. Raises InputError when nothing is."""
    path = live / "plan.json"
    if not path.is_file():
        raise InputError(str(path), "no stack is applied here yet: `make up`")
    plan: dict[str, Any] = json.loads(path.read_text())
    return plan


def gateway_url(plan: Mapping[str, Any]) -> str:
    """Where the gateway of a plan answers on this host."""
    listen = next(entry["address"] for entry in plan["published"] if entry["service"] == "nginx")
    host = "localhost" if listen in ("0.0.0.0", "127.0.0.1") else listen
    return f"https://{host}:{plan['gateway']['https_port']}"


def local_gateway(plan: Mapping[str, Any], state: Path) -> GatewayClient:
    """A client of this host's gateway, with the first API key of the plan."""
    own = plan["gateway"]["tls"] is not None
    key = credentials.key_file(state, plan["gateway"]["api_keys"][0]).read_text().strip()
    return GatewayClient(
        gateway_url(plan), key,
        ca_file=None if own else state / credentials.CERTIFICATE,
        server_name=plan["gateway"]["server_name"],
    )  # fmt: skip


def _plan_for_here(inputs: Inputs) -> Plan:
    plans = inputs.plans()
    if len(plans) != 1:
        raise InputError(inputs.shown, "this command works on one host: name it with --host")
    return plans[0]


def _provide(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> list[str]:
    for name in credentials.ensure_keys(inputs.state, inputs.config.gateway.api_keys):
        say(f"made the API key {name!r}: {credentials.key_file(inputs.state, name)}")
    renewed = credentials.ensure_certificate(inputs.state, inputs.config.gateway, ROOT)
    if renewed:
        say(f"wrote the certificate {inputs.state / credentials.CERTIFICATE}")
    tls = [inputs.state / credentials.CERTIFICATE, inputs.state / credentials.PRIVATE_KEY]
    give_to(tls, NGINX_UID, plan.images["nginx"], client)
    caches = [Path(engine.cache_dir) for engine in plan.engines]
    for cache in caches:
        cache.mkdir(parents=True, exist_ok=True)
    give_to(caches, ENGINE_UID, plan.images["nginx"], client)
    return ["nginx"] if renewed else []


def _check_flags(inputs: Inputs, plan: Plan, live: Path) -> None:
    applied = json.loads((live / "plan.json").read_text())["engines"] if (live / "plan.json").is_file() else []
    known = {tuple(engine["argv"]) for engine in applied if engine["image"] == plan.images["vllm"]}
    argvs = {engine.argv: engine.served_model_name for engine in plan.engines if engine.argv not in known}
    if not argvs:
        return
    with step("checking the engines' flags with vLLM's own parser"):
        try:
            found = refusals(plan.images["vllm"], list(argvs))
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


def _apply(
    plan: Plan, live: Path, old: Mapping[str, bytes], files: Mapping[str, bytes],
    changes: list[Change], reloads: list[str], client: docker.DockerClient,
) -> list[str]:  # fmt: skip
    try:
        done = apply.bring_up(plan, live, files, changes, reloads, client)
        failed = [result for result in verify(Path(plan.state_dir), live, client) if result.failed]
        if failed:
            lines = [f"  {result.name}: {result.detail}\n    next: {result.look}" for result in failed]
            raise StackError("\n".join([f"the stack is up, but {len(failed)} checks failed", *lines]))
    except StackError as error:
        raise StackError(f"{error}\n{_put_back(plan, live, old, changes, client)}") from None
    return done


def _put_back(
    plan: Plan, live: Path, old: Mapping[str, bytes], changes: list[Change], client: docker.DockerClient
) -> str:
    if old and not changes:
        return "Nothing had been changed: the stack is as this command found it."
    if not old:
        compose(live, "down", "--remove-orphans")
        shutil.rmtree(live)
        return "Nothing ran before, so what was started is stopped again; images, models and secrets are kept."
    say("putting the previous stack back")
    write_tree(live, old)
    compose(live, "up", "--detach", "--remove-orphans", "--no-build", "--pull", "never")
    apply.reload(plan, sorted({change.unit for change in changes if change.needs == "reload"}), client)
    return "The previous stack was put back and is running."
