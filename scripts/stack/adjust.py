"""Changes of the gateway alone, on the stack as it was applied: keys, certificate, drained replicas.

What else may have changed in the stack file meanwhile is left to `make up`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import docker

from stack import certificates, kept_state
from stack.apply import Before, look, mark_proven
from stack.config import Gateway
from stack.errors import InputError, StackError
from stack.gateway_state import GatewayState
from stack.ownership import NGINX_UID, give_to
from stack.plan import Plan, plan_from
from stack.put_back import put_back
from stack.reload import reload, services_of
from stack.render import MANIFEST, manifest, render
from stack.tree import compare, write_tree
from stack.validate import validate

UNITS = ("nginx", "haproxy")


def applied(live: Path) -> Plan:
    """The plan of the applied tree. Raises InputError when nothing is applied."""
    path = live / "plan.json"
    if not path.is_file():
        raise InputError(str(path), "no stack is applied here yet: `make up`")
    try:
        return plan_from(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError):
        raise StackError(f"{path} is damaged or of another version: `make up` writes it anew") from None


def adjust(
    project: str, state: Path, root: Path, client: docker.DockerClient,
    decide: Callable[[GatewayState], GatewayState] = lambda state: state,
) -> list[str]:  # fmt: skip
    """Render the gateway's files from what is kept now, validate them, reload; the parts that were reloaded.

    decide: a last change of what is rendered. Raises StackError after putting back what ran before.
    """
    live = state / "live"
    plan = applied(live)
    before = look(project, live, client)
    certificate = json.loads(before.files["nginx/revision.json"])["certificate"]
    wanted = decide(kept_state.load(state, plan.gateway["api_keys"], certificate))
    rendered = render(plan, wanted, root)
    files = {path: data for path, data in before.files.items() if path != MANIFEST and not _gateways(path)}
    files |= {path: data for path, data in rendered.items() if _gateways(path)}
    files[MANIFEST] = manifest(files)
    units = sorted({change.unit for change in compare(before.files, files)})
    if not units:
        return []
    check = state / "checked"
    write_tree(check, files)
    validate(check, plan.images, state / "tls", client)
    try:
        write_tree(live, files)
        reload(project, services_of(units), files, client)
    except BaseException as error:
        outcome = back(project, state, root, files, before, client)
        if isinstance(error, StackError):
            raise StackError(f"{error}\n{outcome}") from None
        raise
    if before.proven:
        mark_proven(live, files)
    return units


def drained_tree(
    plan: Plan, state: Path, root: Path, files: Mapping[str, bytes], more: frozenset[str]
) -> dict[str, bytes]:
    """A plan's tree in which HAProxy leaves these replicas alone too; nothing else differs."""
    certificate = json.loads(files["nginx/revision.json"])["certificate"]
    kept = kept_state.load(state, plan.gateway["api_keys"], certificate)
    rendered = render(plan, replace(kept, drained=kept.drained | more), root)
    tree = {**files, "haproxy/haproxy.cfg": rendered["haproxy/haproxy.cfg"]}
    return {**tree, MANIFEST: manifest({path: data for path, data in tree.items() if path != MANIFEST})}


def back(
    project: str, state: Path, root: Path, files: Mapping[str, bytes], before: Before, client: docker.DockerClient
) -> str:
    """put_back() with the drained trees of what ran before."""
    plan = plan_from(json.loads(before.files["plan.json"])) if before.files else None
    drained_files = partial(drained_tree, plan, state, root, before.files) if plan else lambda _: before.files
    return put_back(project, state / "live", files, before, client, drained_files)


def new_certificate(state: Path, gateway: Gateway, root: Path, image: str, client: docker.DockerClient) -> str:
    """The pair that the stack file's certificate is now, readable for nginx; its name."""
    name, _ = certificates.ensure(state, gateway, root)
    pair = [certificates.certificate_file(state, name), certificates.private_key_file(state, name)]
    give_to(pair, NGINX_UID, image, client)
    return name


def with_certificate(name: str) -> Callable[[GatewayState], GatewayState]:
    """For adjust(): show this pair."""
    return lambda state: replace(state, certificate=name)


def _gateways(path: str) -> bool:
    return path.split("/", 1)[0] in UNITS
