"""Everything that the running stack does not notice: checks, images, models, secrets, and a validated tree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import docker

from stack import api_keys, apply, certificates, image_record, preflight
from stack.adjust import provide_certificate
from stack.config.load import problem_at
from stack.config.schema import StackConfig
from stack.console import say, step
from stack.deploy.shipped import refuse_other
from stack.engine_args import refusals
from stack.errors import InputError, StackError
from stack.images import store
from stack.inputs import ROOT, Inputs, gather, remember
from stack.models.fetch import ensure_models
from stack.observe import provide
from stack.ownership import ENGINE_UID, WATCH_UID, give_to
from stack.plan.gateway import client_names
from stack.plan.types import Plan
from stack.secrets import engine_key, grafana
from stack.secrets.check import check as check_secrets
from stack.secrets.check import tighten
from stack.secrets.copies import MODE as COPY_MODE
from stack.secrets.copies import copies_of, hand_out
from stack.tree import compare, write_tree
from stack.validate import validate


def _plan_for_here(inputs: Inputs) -> Plan:
    plans = inputs.plans()
    if len(plans) != 1:
        raise InputError(inputs.shown, "this command works on one host: name it with --host")
    if plans[0].fleet:
        what = f"host {plans[0].host!r} is one of a fleet, which is brought up from its controller: docs/fleet.md"
        raise InputError(inputs.shown, f"{what}; `make up` brings up a host that is a stack for itself")
    return plans[0]


def prepare(
    inputs: Inputs, arguments: argparse.Namespace, before: apply.Before, client: docker.DockerClient
) -> tuple[Inputs, Plan, dict[str, bytes]]:
    """Make everything present that the stack needs; the inputs, the plan and the validated tree. Raises StackError.

    arguments.shipped: a tree that was rendered elsewhere for this host and has to be what is rendered here.
    """
    certificates.check_own(inputs.config.gateway, ROOT, inputs.shown)
    plan = _plan_for_here(inputs)
    check_secrets(inputs.state, plan.gateway["api_keys"], inputs.config.gateway, ROOT)
    preflight.check(inputs, plan, client)
    remember(inputs, plan, failed_before=True)  # another stack must not choose the same GPUs meanwhile
    make_present(inputs, inputs.config, plan, client, kept=arguments.kept is not None)
    inputs = gather(arguments)  # what just arrived has facts to check: models, and images whose digest is known now
    plan = _plan_for_here(inputs)
    _make_secrets_and_folders(inputs, plan, client)
    files = inputs.render(plan)
    if arguments.shipped is not None:
        refuse_other(arguments.shipped, files)
    check_tree(inputs, plan, files, before, client)
    return inputs, plan, files


def make_present(
    inputs: Inputs, config: StackConfig, plan: Plan, client: docker.DockerClient, *, kept: bool = False
) -> None:
    """Images and models onto this host. config: of the models that it serves. kept: for a release from before."""
    # of that every image is here, and none may come in its place
    made = [] if kept else store.provide(
        ROOT, config.images, inputs.source, config.device, say, client, config.images_unwanted
    )  # fmt: skip
    image_record.add(inputs.shared, made)
    preflight.check_image(inputs, plan, client)
    ensure_models(config, ROOT, say, inputs.shown)


def check_tree(
    inputs: Inputs, plan: Plan, files: Mapping[str, bytes], before: apply.Before, client: docker.DockerClient
) -> None:
    """Have a tree checked by the programs that read it, where it is not what runs proven. Raises StackError."""
    rendered = inputs.build / plan.host
    write_tree(rendered, files)
    if compare(before.files, files) or not before.proven:
        with step("checking the configuration with nginx, HAProxy, promtool, amtool and Compose"):
            validate(rendered, plan.images, inputs.state, client)
        _check_flags(inputs, plan, before, client)


def make_secrets(config: StackConfig, state: Path) -> list[str]:
    """Make the secrets that are missing: API keys, the engines' key, the certificate; what was made."""
    made = [f"API key {name}" for name in api_keys.ensure_keys(state, client_names(config))]
    if engine_key.load(state) is None:
        engine_key.ensure(state)
        made.append("key of the engines")
    name, new = certificates.ensure(state, config.gateway, ROOT)
    if new:
        made.append(f"certificate {certificates.certificate_file(state, name)}")
    for what in made:
        say(f"made: {what}")
    return made


def _make_secrets_and_folders(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> None:
    make_secrets(inputs.config, inputs.state)
    keys = engine_key.ensure(inputs.state)
    hand_out(inputs.state, copies_of(keys), plan.images["nginx"], client)
    if "grafana" in plan.images:
        hand_out(inputs.state, grafana.ensure(inputs.state), plan.images["nginx"], client)
    tighten(inputs.state)
    provide_certificate(inputs.state, inputs.config.gateway, ROOT, plan.images["nginx"], client)
    provide_for_watching(inputs.state, plan, client)
    make_folders(inputs.state, plan, client)


def provide_for_watching(state: Path, plan: Plan, client: docker.DockerClient) -> None:
    """What the probes and Alertmanager read, as files of theirs."""
    watched = provide.for_probe(state) + provide.for_alertmanager(plan.watch, ROOT, state)
    give_to(watched, WATCH_UID, plan.images["nginx"], client, COPY_MODE)


def make_folders(state: Path, plan: Plan, client: docker.DockerClient) -> None:
    """The folders that engines write to."""
    folders = [Path(path) for engine in plan.engines for path in (engine.cache_dir, engine.evidence_dir)]
    folders.append(state / "textfile")  # what engines count, for the node exporter
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    give_to(folders, ENGINE_UID, plan.images["nginx"], client)


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
