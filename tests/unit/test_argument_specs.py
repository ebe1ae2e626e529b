"""Every role's argument specification describes its defaults: all of them, with the type that they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stack.yaml_input import parsed
from stacks import ROOT

ROLES = sorted(path.parent.parent for path in (ROOT / "ansible/roles").glob("*/defaults/main.yml"))
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}


def loaded(path: Path) -> Any:
    return parsed(path.read_text())


def options(role: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = loaded(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


def test_there_are_roles() -> None:
    assert {"docker", "nvidia_driver", "node_report"} <= {role.name for role in ROLES}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_specification_is_of_the_defaults(role: Path) -> None:
    defaults = loaded(role / "defaults/main.yml")
    assert list(options(role)) == list(defaults)
    assert all(option["description"] for option in options(role).values())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_of_their_type_and_named_after_their_role(role: Path) -> None:
    for name, value in loaded(role / "defaults/main.yml").items():
        assert name.startswith(f"{role.name}_")
        option = options(role)[name]
        if not (isinstance(value, str) and "{{" in value):  # known only when it is played
            assert value is None or isinstance(value, TYPES[option["type"]]), name
            assert value in option.get("choices", [value])


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_is_used(role: Path) -> None:
    text = "".join(path.read_text() for path in role.rglob("*") if path.is_file() and "meta" not in path.parts)
    assert [name for name in options(role) if text.count(name) < 2] == []
