"""What the stack of this stack file needs before it starts."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import requests
from cryptography import x509

from stack import certificates, preflight
from stack.config.folders import absolute, model_dir
from stack.day2.doctor import Box, Finding
from stack.errors import InputError, StackError
from stack.images.carry import present
from stack.images.source import HUB, registry_answers
from stack.inputs import ROOT
from stack.models import hub_access

SOON_DAYS = 30
HUB_SECONDS = 5.0


def readiness(box: Box) -> Iterator[Finding]:
    """What `make up` checks before its first change: ports, disk, GPUs, other stacks of this name."""
    if box.inputs is None or box.plan is None:
        return
    if box.client is None:
        # nothing of ours can hold a port while there is no engine
        taken = [f"{one.address}:{one.port}" for one in box.plan.ports if preflight.cannot_bind(one)]
        if taken:
            yield Finding("problem", "ports", f"{', '.join(taken)} taken", "`ss -ltnp` shows who has them")
        else:
            yield Finding("ok", "ports", ", ".join(f"{one.address}:{one.port}" for one in box.plan.ports))
        return
    try:
        preflight.check(box.inputs, box.plan, box.client)
    except InputError as error:
        for problem in error.problems:
            what, _, todo = problem.what.partition("; ")
            yield Finding("problem", problem.where or "preflight", what, todo)
    else:
        yield Finding("ok", "preflight", "ports, disk, GPUs and the stack's name are as `make up` wants them")


def image_source(box: Box) -> Iterator[Finding]:
    """Images that are here, and where the others would come from."""
    if box.inputs is None:
        return
    wanted = sorted(set(box.inputs.images.values()))
    missing = [ref for ref in wanted if box.client is None or not present(box.client, ref)]
    if not missing:
        yield Finding("ok", "images", f"all {len(wanted)} are here")
        return
    told = f"{len(missing)} of {len(wanted)} are not here yet" if box.client else f"{len(wanted)} are needed"
    if box.inputs.source == "build":
        yield Finding("ok", "images", f"{told}; `make up` builds them")
        return
    mirror = box.config.images.mirror
    host = mirror.split("/", 1)[0] if mirror else HUB
    if registry_answers(host):
        yield Finding("ok", "images", f"{told}; the registry {host} answers")
    else:
        todo = "images.mirror names another registry; DNS, proxy and firewall of the Docker daemon count, too"
        yield Finding("problem", "images", f"{told}, and the registry {host} does not answer", todo)


def models(box: Box) -> Iterator[Finding]:
    """Models that are here, and whether the hub answers where one is to be fetched. Their files: `make up` checks."""
    folders = {model.served_model_name: model_dir(box.config, model, ROOT) for model in box.config.models}
    missing = [model for model in box.config.models if not folders[model.served_model_name].is_dir()]
    if len(missing) < len(folders):
        yield Finding("ok", "models", f"{len(folders) - len(missing)} of {len(folders)} are here")
    for model in missing:
        name = f"model {model.served_model_name}"
        if model.source.hub:
            yield _hub(box, name)
        elif model.source.archive and not absolute(ROOT, model.source.archive).is_file():
            yield Finding("problem", name, f"the archive {model.source.archive} is not here")
        elif model.source.path:
            yield Finding("problem", name, f"{folders[model.served_model_name]} is not a folder on this host")
        else:
            yield Finding("ok", name, "made or unpacked by `make up`")


def certificate(box: Box) -> Iterator[Finding]:
    """The certificate that clients see, and the user's own that will take its place."""
    files = [certificates.client_trust_file(box.state)]
    if box.config.gateway.tls:
        files.append(absolute(ROOT, box.config.gateway.tls.certificate))
    own = box.config.gateway.tls is not None
    todo = "renew it, then `make tls-reload`" if own else "`make up` makes a new one"
    for path in files:
        if not path.is_file():
            continue
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        days = (ends - datetime.datetime.now(datetime.UTC)).days
        told = f"{path}: until {ends:%Y-%m-%d} ({days} days)"
        status = "problem" if days < 0 else "warning" if days < SOON_DAYS else "ok"
        yield Finding(status, "certificate", told, "" if status == "ok" else todo)  # type: ignore[arg-type]
    try:
        certificates.check_own(box.config.gateway, ROOT, "stack file")
    except InputError as error:
        for problem in error.problems:
            yield Finding("problem", problem.where, problem.what)


def _hub(box: Box, name: str) -> Finding:
    try:
        address = hub_access.endpoint(box.config.hub)
        requests.get(address, timeout=HUB_SECONDS, allow_redirects=False)
    except (StackError, requests.RequestException) as error:
        cause = type(error).__name__ if isinstance(error, requests.RequestException) else str(error)
        todo = "hub.mirror, HF_ENDPOINT or a proxy; or copy the model here: docs/models.md"
        return Finding("problem", name, f"not here, and the hub does not answer ({cause})", todo)
    return Finding("ok", name, f"not here yet; {address} answers, `make fetch` brings it")


CHECKS = (readiness, image_source, models, certificate)
