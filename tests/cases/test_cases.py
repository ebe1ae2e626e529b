"""A case is a folder: stack.yaml (and hosts.yaml, models/) -> plan.json or error.txt. Its name is the behaviour.

`UPDATE_CASES=1 make test-unit` writes the expected files anew: read the diff before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stack.config import load_config, problem_at
from stack.errors import InputError
from stack.hardware import Host, load_hosts
from stack.model import ModelFilesError, read_facts
from stack.plan import make_plan, model_dir

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/stack.yaml"))
ROOT = Path("/srv/vllm-onprem")
ROLES = (
    "alertmanager",
    "blackbox_exporter",
    "cadvisor",
    "dcgm_exporter",
    "haproxy",
    "nginx",
    "node_exporter",
    "prometheus",
    "vllm",
)
IMAGES = {role: f"registry.example.org/{role}:1.2.3" for role in ROLES}


def outcome(case: Path) -> tuple[str, str]:
    """(file name, content) that a case should hold."""
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
        plans = [make_plan(config, host, IMAGES, ROOT, facts) for host in hosts]
    except InputError as error:
        return "error.txt", str(error).replace(str(case), "CASE") + "\n"
    return "plan.json", json.dumps([plan.as_dict() for plan in plans], indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = HERE / name
    file, content = outcome(case)
    if os.environ.get("UPDATE_CASES"):
        for old in ("plan.json", "error.txt"):
            (case / old).unlink(missing_ok=True)
        (case / file).write_text(content)
    expected = case / file
    assert expected.exists(), f"the outcome is now {file}:\n{content}"
    assert content == expected.read_text()


def test_there_are_cases_of_both_kinds() -> None:
    outcomes = {path.name for name in CASES for path in (HERE / name).iterdir()}
    assert {"plan.json", "error.txt"} <= outcomes
