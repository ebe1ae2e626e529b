"""Changes of the gateway alone, on the stack as it was applied: keys, certificate, drained replicas.

What else may have changed in the stack file meanwhile is left to `make up`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import docker

from stack import certificates, kept_state
from stack.apply import Before, look, mark_proven
from stack.config.gateway import Gateway
from stack.console import say
from stack.errors import InputError, StackError
from stack.gateway_state import GatewayState
from stack.observe import provide
from stack.ownership import NGINX_UID, give_to
from stack.plan.types import Plan, plan_from
from stack.put_back import put_back
from stack.reload import reload, services_of
from stack.render import MANIFEST, manifest, nginx_revision, render
from stack.tree import compare, write_tree
from stack.validate import validate

UNITS = ("nginx", "haproxy")


def applied(live: Path) -> Plan:
    """The plan of the applied tree. Raises InputError when nothing is applied."""
    try:
        return plan_from(applied_plan(live))
    except (TypeError, KeyError):
        raise StackError(f"{live / 'plan.json'} is of another version: `make up` writes it anew") from None


def applied_plan(live: Path) -> dict[str, Any]:
    """plan.json of what is applied here. Raises InputError when nothing is."""
    path = live / "plan.json"
    if not path.is_file():
        raise InputError(str(path), "no stack is applied here yet: `make up`")
    try:
        plan: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise StackError(f"{path} is damaged: `make up` writes it anew") from None
    return plan


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
    certificate = nginx_revision(before.files)["certificate"]
    wanted = decide(kept_state.load(state, plan.gateway["api_keys"], certificate))
    files = replaced(before.files, render(plan, wanted, root), is_gateways)
    units = sorted({change.unit for change in compare(before.files, files)})
    if not units:
        return []
    check = state / "checked"
    write_tree(check, files)
    validate(check, plan.images, state, client, units)
    with putting_back(project, state, root, files, before, client):
        write_tree(live, files)
        reload(project, services_of(units), files, client)
    if before.proven:
        mark_proven(live, files)
    return units


def replaced(tree: Mapping[str, bytes], rendered: Mapping[str, bytes], mine: Callable[[str], bool]) -> dict[str, bytes]:
    """A tree with some of its files, those whose paths are mine, as they were rendered now."""
    files = {path: data for path, data in tree.items() if not mine(path)}
    files |= {path: data for path, data in rendered.items() if mine(path)}
    files[MANIFEST] = manifest(files)
    return files


def drained_tree(
    plan: Plan, state: Path, root: Path, files: Mapping[str, bytes], more: frozenset[str]
) -> dict[str, bytes]:
    """A plan's tree in which HAProxy leaves these replicas alone too; nothing else differs."""
    certificate = nginx_revision(files)["certificate"]
    kept = kept_state.load(state, plan.gateway["api_keys"], certificate)
    rendered = render(plan, replace(kept, drained=kept.drained | more), root)
    tree = {**files, "haproxy/haproxy.cfg": rendered["haproxy/haproxy.cfg"]}
    return {**tree, MANIFEST: manifest(tree)}


@contextmanager
def putting_back(
    project: str, state: Path, root: Path, files: Mapping[str, bytes], before: Before, client: docker.DockerClient
) -> Iterator[None]:
    """Whatever ends the block before its end: what ran before is put back, and what state everything is in is said."""
    try:
        yield
    except BaseException as error:
        plan = _plan_in(before.files)
        drained_files = partial(drained_tree, plan, state, root, before.files) if plan else lambda _: before.files
        outcome = put_back(project, state / "live", files, before, client, drained_files)
        if isinstance(error, StackError):
            raise StackError(f"{error}\n{outcome}") from None
        say(outcome)
        raise


def _plan_in(files: Mapping[str, bytes]) -> Plan | None:
    try:
        return plan_from(json.loads(files["plan.json"]))
    except (KeyError, TypeError):
        return None  # nothing was applied, or by another version: then replicas are replaced without being drained


def provide_certificate(state: Path, gateway: Gateway, root: Path, image: str, client: docker.DockerClient) -> str:
    """The pair that the stack file's certificate is now, made if need be and readable for nginx; its name."""
    name, made = certificates.ensure(state, gateway, root)
    if made:
        say(f"new certificate: {certificates.certificate_file(state, name)}")
    pair = [certificates.certificate_file(state, name), certificates.private_key_file(state, name)]
    for path, mode in zip(pair, (0o644, 0o400), strict=True):
        give_to([path], NGINX_UID, image, client, mode)
    provide.trust(state, name)
    return name


def with_certificate(name: str) -> Callable[[GatewayState], GatewayState]:
    """For adjust(): show this pair."""
    return lambda state: replace(state, certificate=name)


def is_gateways(path: str) -> bool:
    """Whether a file of the tree is nginx's or HAProxy's."""
    return path.split("/", 1)[0] in UNITS
