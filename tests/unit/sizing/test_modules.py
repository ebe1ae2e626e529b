"""The planner comes before the plan: it reads no file but a model's, starts nothing, and its modules are small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stacks import ROOT

MODULES = sorted((ROOT / "scripts/stack/sizing").glob("*.py"))
LATER = {
    "stack.plan.make",
    "stack.plan.types",
    "stack.render",
    "stack.inputs",
    "stack.lifecycle",
    "stack.apply",
    "subprocess",
    "docker",
    "requests",
}
# Only these open files: the model's own, the catalogue beside them, and the plan that runs.
READERS = {"catalogue.py", "files.py", "headers.py"}


def imported(module: Path) -> set[str]:
    """Every module that one imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_of_the_planner_needs_nothing_that_comes_after_it(module: Path) -> None:
    needs = imported(module)
    assert needs & LATER == set()
    assert module.name in READERS or "pathlib" not in needs
    assert len(module.read_text().splitlines()) <= 200
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_the_plan_takes_from_the_planner_where_engines_stand() -> None:
    assert "stack.sizing.placement" in imported(ROOT / "scripts/stack/plan/gpus.py")
