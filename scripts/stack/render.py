"""Plan -> the files of build/<host>/. Deterministic: no clock, no randomness, sorted keys.

The tree is the static folders overlaid with the rendered templates at the same relative path; a path in both
is an error. `manifest.json` lists path, sha256, mode and what has to happen in the stack when a file changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from stack import fleet_tree
from stack.errors import StackError
from stack.gateway_state import GatewayState
from stack.observe import files as observe
from stack.plan.types import Plan
from stack.template_context import context_of, targets

MANIFEST = "manifest.json"
REVISION = "nginx/revision.json"
MODE = "0644"  # containers of several users read them; secrets are never in this tree

STATIC = (
    "compose/edge.yaml",
    "compose/observability.yaml",
    "compose/engine",
    "compose/grafana.yaml",
    "compose/gpu-exporters.yaml",
    "compose/dcgm",
    "compose/log-shipping.yaml",
    "compose/fluent-bit",
    "grafana/dashboards",
    "grafana/provisioning",
    "nginx",
)
EACH_JOB = "prometheus/targets/each_job.json.j2"

# First match wins: (path prefix, unit, what a change needs).
UNITS = (
    ("nginx/", "nginx", "reload"),
    ("haproxy/", "haproxy", "reload"),
    ("compose/engine/", "engine", "none"),  # the next health check reads it
    ("blackbox/", "blackbox-exporter", "reload"),
    ("prometheus/alertmanager.yml", "alertmanager", "reload"),
    ("prometheus/targets/", "prometheus", "none"),  # Prometheus watches its target files
    ("prometheus/", "prometheus", "reload"),
    ("grafana/dashboards/", "grafana", "none"),  # Grafana looks every 30 s
    ("plan.json", "stack", "none"),
    ("host/", "host", "none"),  # no container reads them: whoever applies the tree puts them in their place
    ("", "compose", "recreate"),  # Compose itself tells which containers differ
)


def render(plan: Plan, state: GatewayState, root: Path) -> dict[str, bytes]:
    """Relative path -> content, manifest included. root: the project's folder (static folders and templates).

    Of API keys only their SHA-256 comes near this tree.
    """
    files = {
        path: fleet_tree.static_file(path, content, plan)
        for path, content in _static(root)
        if fleet_tree.belongs(path, plan)
    }
    told = plan.as_dict()
    watched = observe.files(told) if fleet_tree.belongs(observe.RULES, plan) else {}
    for path, content in (*_templates(plan, state, root, files), *watched.items()):
        if path in files:
            raise StackError(f"{path} is both a static file and a template: keep one of them")
        files[path] = content
    if fleet_tree.belongs(REVISION, plan):
        files[REVISION] = _revision(files, state.certificate)
    files["plan.json"] = _json(told).encode()
    files[MANIFEST] = manifest(files)
    return dict(sorted(files.items()))


def manifest(files: Mapping[str, bytes]) -> bytes:
    """manifest.json for a tree: one entry for each file but itself."""
    entries = []
    for path, content in sorted(files.items()):
        if path == MANIFEST:
            continue
        unit, action = unit_of(path)
        entries.append(
            {
                "path": path,
                "sha256": hashlib.sha256(content).hexdigest(),
                "mode": MODE,
                "unit": unit,
                "on_change": action,
            }
        )
    return _json({"files": entries}).encode()


def unit_of(path: str) -> tuple[str, str]:
    """(unit, what a change of this file needs): reload, recreate or none."""
    return next((unit, action) for prefix, unit, action in UNITS if path.startswith(prefix))


def nginx_revision(files: Mapping[str, bytes]) -> dict[str, str]:
    """revision and certificate of a tree, as nginx/revision.json has them."""
    told: dict[str, str] = json.loads(files[REVISION])
    return told


def _revision(files: Mapping[str, bytes], certificate: str) -> bytes:
    # nginx tells it, so that a reload can be seen to have happened
    return _json({"revision": _digest(files, "nginx/"), "certificate": certificate}).encode()


def _digest(files: Mapping[str, bytes], folder: str) -> str:
    """The start of a SHA-256 of all paths and contents below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in files if path.startswith(folder)):
        total.update(hashlib.sha256(path.encode()).digest() + hashlib.sha256(files[path]).digest())
    return total.hexdigest()[:16]


def _static(root: Path) -> Iterator[tuple[str, bytes]]:
    for name in STATIC:
        start = root / name
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            # an import here leaves byte code beside the programs
            if path.is_file() and not path.name.startswith(".") and path.parent.name != "__pycache__":
                yield path.relative_to(root).as_posix(), path.read_bytes()


def _templates(plan: Plan, state: GatewayState, root: Path, static: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    environment = _environment(root / "templates")
    # what a container reads only when it starts: other files are another container
    read_at_start = {
        "grafana_provisioning": _digest(static, "grafana/provisioning/"),
        "dcgm_counters": _digest(static, "compose/dcgm/"),
        "log_configuration": _digest(static, "compose/fluent-bit/"),
    }
    known = {**context_of(plan, state), **read_at_start}
    for name in environment.list_templates(extensions=["j2"]):
        path = name.removesuffix(".j2")
        if not fleet_tree.belongs(path, plan):
            continue
        if name == EACH_JOB:
            for job, found in targets(plan).items():
                yield f"prometheus/targets/{job}.json", _print(environment, name, {"targets": found})
        else:
            yield path, _print(environment, name, known)


def _print(environment: Environment, name: str, known: Mapping[str, Any]) -> bytes:
    try:
        return environment.get_template(name).render(known).encode()
    except TemplateError as error:
        raise StackError(f"templates/{name}: {error}") from error


@cache
def _environment(folder: Path) -> Environment:
    # cached: compiling the templates costs more than printing them for a host
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json.dumps
    # Compose would replace $NAME in any value, and does not join JSON's surrogate pairs
    environment.filters["compose_json"] = lambda value: json.dumps(value, ensure_ascii=False).replace("$", "$$")
    return environment


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
