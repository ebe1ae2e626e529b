"""pydantic's validation errors as the problems a person can act on: key path, value, what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from stack.errors import Problem

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (quote it if it looks like a number)",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
}


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """Every problem, in the order of the file's keys; never the library's own wording of a type error."""
    items = error.errors(include_url=False)
    inside = {item["loc"][:length] for item in items for length in range(len(item["loc"]))}
    found: list[Problem] = []
    for item in items:
        # a list whose items failed is also reported as "too short": the items say it better
        if not (item["type"] == "too_short" and item["loc"] in inside) and _of_its_branch(item):
            found += _problems(item, root)
    return list(dict.fromkeys(found))


def _of_its_branch(item: Mapping[str, Any]) -> bool:
    # a key that is a word or a mapping fails as both: what a person wrote is one of them
    branch = next((part for part in item["loc"] if _is_branch(part)), None)
    if branch is None:
        return True
    if str(branch).startswith("literal"):
        return not isinstance(item["input"], Mapping)
    return item["type"] not in {"model_type", "model_attributes_type"}


def _is_branch(part: str | int) -> bool:
    # the library's name of a union's branch, such as literal['a','b']
    return isinstance(part, str) and "[" in part


def _problems(item: Mapping[str, Any], root: type[BaseModel]) -> Iterator[Problem]:
    location = tuple(part for part in item["loc"] if not _is_branch(part))
    where, kind, value = key_path(location), item["type"], item["input"]
    context = item.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1], root)
        yield Problem(where, f"unknown key{_nearest(str(location[-1]), known)}")
    elif kind == "missing":
        yield Problem(where, "this key is needed")
    elif kind == "value_error":
        text = str(context.get("error", item["msg"]))
        yield Problem(where, f"{shown(value)}: {text}" if _is_leaf(value) else text)
    elif kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        hint = _nearest(str(value), allowed, list_all=True) if allowed else f"; allowed: {context['expected']}"
        yield Problem(where, f"{shown(value)} is not allowed{hint}")
    elif kind in _WANTED:
        yield Problem(where, f"{shown(value)} is not {_WANTED[kind]}")
    elif kind == "too_short":
        yield Problem(where, "at least one is needed")
    else:
        text = item["msg"].replace("Input should be", "must be").replace("String should", "must")
        yield Problem(where, f"{shown(value)}: {text}")


def key_path(location: Sequence[str | int]) -> str:
    """``('models', 0, 'replicas')`` as ``models[0].replicas``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def shown(value: object) -> str:
    """A value as it may stand in a message: one line, short."""
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _is_leaf(value: object) -> bool:
    return not isinstance(value, dict | list | tuple | BaseModel)


def _nearest(word: str, known: Sequence[str], *, list_all: bool = False) -> str:
    close = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(known)}" if known or list_all else ""


def _keys_at(location: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    section: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, int) or section is None:
            continue
        field = section.model_fields.get(part)
        section = _section_in(field.annotation) if field else None
    return sorted(section.model_fields) if section else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found:
            return found
    return None
