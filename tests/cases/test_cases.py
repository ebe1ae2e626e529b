"""A case is a folder: stack.yaml (and hosts.yaml, models/) -> plan.json or error.txt. Its name is the behaviour.

A fleet's hosts.lock says where its engines run by now.

Where the plan knows a model, reasons.txt holds what `make plan` says of it.

`UPDATE_CASES=1 make test-unit` writes the expected files anew: read the diff before you commit it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stack import fleet_lock
from stack.config.folders import model_dir
from stack.config.load import load_config, problem_at
from stack.errors import InputError
from stack.hardware import Host, is_fleet, load_hosts
from stack.models.config_json import ModelFilesError, read_facts
from stack.plan.fleet import Given, make_fleet
from stack.plan.make import make_plan
from stack.sizing.explain import sized_text
from stack.sizing.files import needs_of
from stack.sizing.resolve import Resolver, Sized

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/stack.yaml"))
ROOT = Path("/srv/vllm-onprem")
FILES = ("plan.json", "reasons.txt", "error.txt")
ROLES = (
    "alertmanager",
    "blackbox_exporter",
    "cadvisor",
    "dcgm_exporter",
    "grafana",
    "haproxy",
    "nginx",
    "node_exporter",
    "prometheus",
    "vllm",
)
IMAGES = {role: f"registry.example.org/{role}:1.2.3" for role in ROLES}


def outcome(case: Path) -> dict[str, str]:
    """File name -> content that a case should hold."""
    try:
        config = load_config(case / "stack.yaml", "stack.yaml")
        hosts = load_hosts(case / "hosts.yaml") if (case / "hosts.yaml").exists() else (Host(),)
        facts, problems = {}, []
        for model in config.models:
            folder = model_dir(config, model, case)
            if model.source.path is None or not folder.is_relative_to(case):
                continue
            try:
                facts[model.served_model_name] = read_facts(folder)
            except ModelFilesError as error:
                problems.append(problem_at(config, model, "source.path", str(error)))
        if problems:
            raise InputError("stack.yaml", problems)
        needs = needs_of(config, lambda model: model_dir(config, model, case), "stack.yaml")
        if is_fleet(hosts):
            previous = fleet_lock.load(case / "hosts.lock")
            made = make_fleet(config, hosts, Given(IMAGES, ROOT, facts, needs, {}, previous=previous))
        else:
            resolver = Resolver(config, needs)
            resolved = [(host, *resolver.host(host)) for host in hosts]
            made = [(make_plan(one, host, IMAGES, ROOT, facts), sized) for host, one, sized in resolved]
    except InputError as error:
        return {"error.txt": str(error).replace(str(case), "CASE") + "\n"}
    plans = [plan.as_dict() for plan, _ in made]
    found = {"plan.json": json.dumps(plans, indent=1, sort_keys=True) + "\n"}
    reasons = [reason for plan, (_, sized) in zip(plans, made, strict=True) for reason in _reasons(plan, sized)]
    return found | ({"reasons.txt": "\n\n".join(reasons) + "\n"} if reasons else {})


def _reasons(plan: dict[str, Any], sized: tuple[Sized, ...]) -> Iterator[str]:
    for one in sized:
        if one.choice is not None:
            name = one.model.served_model_name
            engines = [engine for engine in plan["engines"] if engine["served_model_name"] == name]
            yield f"host {plan['host']}\n{sized_text(one, engines)}"


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = HERE / name
    found = outcome(case)
    if os.environ.get("UPDATE_CASES"):
        for old in FILES:
            (case / old).unlink(missing_ok=True)
        for file, content in found.items():
            (case / file).write_text(content)
    held = {file: (case / file).read_text() for file in FILES if (case / file).exists()}
    assert held == found


def test_there_are_cases_of_both_kinds() -> None:
    outcomes = {path.name for name in CASES for path in (HERE / name).iterdir()}
    assert {"plan.json", "error.txt"} <= outcomes
