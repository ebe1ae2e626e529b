"""The shape of the house: imports go one way, modules stay small, and each language keeps to its folder."""

from __future__ import annotations

import ast
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stacks import ROOT

LIBRARY = ROOT / "scripts/stack"
# Names below stack: a module, or folder.module
PATHS = {
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts): path
    for path in sorted(LIBRARY.rglob("*.py"))
    if path.stem != "__init__"
}
MODULES = list(PATHS)
LATEST = ":" + "latest"  # apart, as this file is searched too


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All of them, however deep; expressions hold none, and are most of a tree."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield node
            yield from statements(node)


@cache
def imports_of(module: str) -> set[str]:
    """Modules of the library that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in statements(ast.parse(PATHS[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name.removeprefix("stack.") for name in found if name.startswith("stack.")} & set(MODULES)


def folder(name: str) -> set[str]:
    """The modules of one folder of the library."""
    return {module for module in MODULES if module.startswith(f"{name}.")}


def needs(*modules: str) -> set[str]:
    """Everything that comes in with some modules."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        for name in imports_of(todo.pop()) - found:
            found.add(name)
            todo.append(name)
    return found


@pytest.mark.parametrize(
    ("part", "later"),
    [
        ("errors", set(MODULES) - {"errors"}),
        ("yaml_input", {"render", *folder("config"), *folder("plan")}),
        ("config", {"render", "hardware", "inputs", *folder("plan"), *folder("models"), *folder("images")}),
        ("hardware", {"render", *folder("plan")}),
        ("models", {"render", *folder("plan")}),
        ("plan", {"render", "tree", "inputs", "docker_host", *folder("images")}),
        ("render", {"tree", "inputs", "docker_host", "apply", "api_keys", "certificates"}),
        ("images.choice", {"render", "inputs", "docker_host", *folder("plan")}),
        ("images.store", {"render", "inputs", *folder("plan")}),
        ("smoke", {"render", "apply", *folder("plan")}),
        ("gateway_client", {"render", *folder("plan"), *folder("config")}),
        ("in_vllm", set(MODULES) - {*folder("in_vllm")}),
    ],
)
def test_a_module_or_a_folder_does_not_need_what_comes_after_it(part: str, later: set[str]) -> None:
    modules = folder(part) or {part}
    assert modules <= set(MODULES)
    assert needs(*modules) & later == set()


def test_no_two_modules_need_each_other() -> None:
    assert [module for module in MODULES if module in needs(module)] == []


def test_the_imports_that_the_rules_are_about_are_seen() -> None:
    assert "config.schema" in imports_of("plan.make")
    assert "plan.types" in imports_of("render")
    assert "images.choice" in imports_of("inputs")
    assert {"config.load", "plan.make", "render", "errors", "images.store"} <= needs("lifecycle")


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_modules_are_small() -> None:
    assert MODULES
    assert [module for module in MODULES if lines_of(PATHS[module]) > 200] == []


def test_scripts_are_shorter_than_a_hundred_lines() -> None:
    lengths = {path.name: lines_of(path) for path in (ROOT / "scripts").glob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length >= 100} == {}


def test_every_module_says_what_it_is() -> None:
    paths = [*(ROOT / "scripts").glob("*.py"), *LIBRARY.rglob("*.py"), *(ROOT / "tests").rglob("test_*.py")]
    assert [path.name for path in paths if not begins_with_a_text(path)] == []


def begins_with_a_text(path: Path) -> bool:
    """Whether a module's first statement is a docstring; a tree of the whole module costs a hundred times as much."""
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING)
    with path.open("rb") as file:
        first = next(token for token in tokenize.tokenize(file.readline) if token.type not in ignored)
    return first.type == tokenize.STRING and len(ast.literal_eval(first.string).strip()) > 0


def files(*folders: str) -> Iterator[Path]:
    """Files of the project's own: those that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    yield from (path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())


def containing(pattern: str, *folders: str) -> list[str]:
    wanted = re.compile(pattern.encode())
    return [str(path.relative_to(ROOT)) for path in files(*folders) if wanted.search(path.read_bytes())]


def test_no_file_names_an_image_by_a_tag_that_moves() -> None:
    assert containing(rf"[\w}}]{LATEST}\b") == []


def test_jinja_is_under_templates_only() -> None:
    assert (
        containing(r"\{\{|\{%|\{#", "nginx", "compose/edge.yaml", "compose/observability.yaml", "compose/examples")
        == []
    )
    # rules and notifications have Go's templates, which know {{ but not {%
    assert containing(r"\{%|\{#", "prometheus") == []
    assert (
        containing(r"\{\{(?!-?\s*(?:\$|\.|end|if|else|range|with|define|template|query|humanize))", "prometheus") == []
    )


def test_every_template_is_one() -> None:
    templates = {str(path.relative_to(ROOT)) for path in files("templates")}
    assert templates == set(containing(r"\{\{|\{%", "templates"))
    assert [name for name in templates if not name.endswith(".j2")] == []
