"""What a host of a fleet needs for the tree that was sent, made present, and that tree as the host renders it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import docker

from stack import apply, certificates, drains, kept_state, preflight
from stack.adjust import provide_certificate
from stack.config.schema import StackConfig
from stack.deploy.shipped import refuse_other
from stack.errors import StackError
from stack.inputs import ROOT, Inputs
from stack.observe import provide, user_files
from stack.plan.types import Plan
from stack.prepare import check_tree, make_folders, make_present, provide_for_watching
from stack.render import render
from stack.replica import kept_folder
from stack.secrets import engine_key, grafana, handed
from stack.secrets.check import check as check_secrets
from stack.secrets.check import tighten
from stack.secrets.copies import Copy, copies_of, hand_out, keep_only


def prepare(
    inputs: Inputs, plan: Plan, shipped: Path, before: apply.Before, client: docker.DockerClient, *, kept: bool
) -> dict[str, bytes]:
    """Make everything present that this host needs; the validated tree. Raises StackError.

    kept: for a release from before: images are those that are here.
    """
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
    make_present(inputs, served_here(inputs.config, plan), plan, client, kept=kept)
    _provide(inputs, plan, client)
    files = rendered(inputs, plan, shipped)
    check_tree(inputs, plan, files, before, client)
    return files


def served_here(config: StackConfig, plan: Plan) -> StackConfig:
    """The stack file with the models alone that this host has engines of."""
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
    """The tree of a plan, which is the one that was sent. Raises StackError: it is another."""
    files = rendered_now(inputs, plan)
    refuse_other(shipped, files)
    return files


def rendered_now(inputs: Inputs, plan: Plan) -> dict[str, bytes]:
    """The tree of a plan with the keys, the certificate and the drained replicas that this host has now."""
    certificate = certificates.current(inputs.state, inputs.config.gateway, ROOT)
    state = kept_state.load(inputs.state, plan.gateway["api_keys"], certificate)
    # what a deploy has out while it replaces it is no part of the tree
    return render(plan, replace(state, drained=drains.drained(inputs.state)), ROOT)


def drop_what_is_over(plan: Plan, state: Path, certificate: str | None) -> None:
    """Secrets that no container reads any more, and what a deploy keeps until its end."""
    keep_only(state, _copies(plan, state))
    if certificate:
        certificates.keep_only(state, certificate)
    shutil.rmtree(kept_folder(state), ignore_errors=True)
