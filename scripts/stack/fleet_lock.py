"""Where each engine of a fleet runs, beside its hosts file: hosts.yaml has hosts.lock. Read by every plan, written on
purpose (scripts/place.py), and kept in git with the hosts file, so that every host plans the same from the same commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stack.config.fields import Name, Port
from stack.config.problems import problems_of
from stack.errors import InputError
from stack.plan.places import EnginePlace
from stack.yaml_input import load_mapping

HEAD = """\
# Where each engine of the fleet runs; what is here stays where it is. Written by scripts/place.py: keep it beside the
# hosts file, in git. Without it, or without a line, an engine is placed anew.
"""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    host: Name
    port: Port
    gpus: tuple[Annotated[str, Field(max_length=100)], ...] = Field((), strict=False)


class _Lock(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    engines: dict[str, _Entry]


@dataclass(frozen=True)
class Moves:
    """What a new lock changes. moved: engines that have another host or other GPUs."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]


def lock_file(hosts: Path) -> Path:
    """The lock of a hosts file."""
    return hosts.with_suffix(".lock")


def load(path: Path) -> dict[str, EnginePlace]:
    """Engine -> its place; empty where there is no lock yet. Raises InputError."""
    if not path.is_file():
        return {}
    document = load_mapping(path)
    try:
        lock = _Lock.model_validate(document)
    except ValidationError as error:
        raise InputError(str(path), problems_of(error, _Lock)) from None
    return {name: EnginePlace(entry.host, entry.gpus, entry.port) for name, entry in lock.engines.items()}


def save(path: Path, places: Mapping[str, EnginePlace]) -> None:
    """Write it in one step, an engine a line."""
    lines = [
        f"  {name}: {{host: {place.host}, port: {place.port}, gpus: {json.dumps(list(place.gpus))}}}\n"
        for name, place in places.items()
    ]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(HEAD + ("engines:\n" if lines else "engines: {}\n") + "".join(lines))
    partial.rename(path)


def moves(old: Mapping[str, EnginePlace], new: Mapping[str, EnginePlace]) -> Moves:
    """What is different."""
    both = sorted(old.keys() & new.keys())
    return Moves(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        moved=tuple(name for name in both if (old[name].host, old[name].gpus) != (new[name].host, new[name].gpus)),
    )
