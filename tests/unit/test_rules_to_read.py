"""prometheus/rules/ holds the rules as one plan renders them, for people who look for an alert there."""

from __future__ import annotations

import os
from pathlib import Path

import alert_cases
from stack.observe.files import rule_files
from stacks import ROOT

FOLDER = ROOT / "prometheus/rules"


def test_the_rules_to_read_are_those_that_the_plan_of_the_alert_cases_renders() -> None:
    rendered = {Path(path).name: content for path, content in rule_files(alert_cases.plan().as_dict()).items()}
    if os.environ.get("UPDATE_CASES"):
        for path in FOLDER.glob("*.yaml"):
            path.unlink()
        for name, content in rendered.items():
            (FOLDER / name).write_bytes(content)
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.yaml")} == rendered
