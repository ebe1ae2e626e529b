"""stack.example.yaml is the reference of every key: it and StackConfig name the same ones.

`#key: value` is a key that is left out there; `# text` is prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.yaml_input import parsed
from stacks import ROOT

EXAMPLE = ROOT / "stack.example.yaml"
# The example says more than the default where the default is "the model's own".
NOT_THE_DEFAULT = {"gateway.api_keys", "models.max_model_len"}


def uncommented(text: str) -> str:
    """The text with every left-out key live: `#key:` and, below it, `#  key:`."""
    return re.sub(r"^( *)#((?:|  +)(?:- )?[a-z0-9_]+:(?: .*)?)$", r"\1\2", text, flags=re.MULTILINE)


def section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_in(part))), None)


def schema_fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, field in section.model_fields.items():
        yield prefix + key, field
        inner = section_in(field.annotation)
        if inner:
            yield from schema_fields(inner, f"{prefix}{key}.")


def values_in(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for key, inner in item.items():
                yield prefix + key, inner
                yield from values_in(inner, f"{prefix}{key}.")


def test_the_file_as_it_stands_is_a_stack_file() -> None:
    assert load_config(EXAMPLE).models


def test_the_file_and_the_program_know_the_same_keys() -> None:
    document = parsed(uncommented(EXAMPLE.read_text()))
    assert sorted({path for path, _ in values_in(document)}) == sorted(path for path, _ in schema_fields(StackConfig))


def test_values_in_the_file_are_the_defaults() -> None:
    defaults = {path: field.get_default() for path, field in schema_fields(StackConfig) if not field.is_required()}
    shown = dict(values_in(parsed(EXAMPLE.read_text())))
    inputs = [path for path in shown if path.startswith("models.source.")]
    differing = {
        path: value
        for path, value in shown.items()
        if path in defaults
        and path not in inputs
        and not isinstance(defaults[path], BaseModel)
        and (tuple(value) if isinstance(value, list) else value) != defaults[path]
    }
    assert set(differing) == NOT_THE_DEFAULT


@pytest.mark.parametrize(
    ("line", "live"),
    [
        ("    #max_model_len: 8192", "    max_model_len: 8192"),
        ("  #tls:", "  tls:"),
        ("  #  certificate: a.pem", "    certificate: a.pem"),
        ("# name: the word before a colon", "# name: the word before a colon"),
        ("#   cp stack.example.yaml stack.yaml", "#   cp stack.example.yaml stack.yaml"),
        ("  key: value  #note: not this", "  key: value  #note: not this"),
    ],
)
def test_only_left_out_keys_become_live(line: str, live: str) -> None:
    assert uncommented(line) == live
