"""A stack file, read as a StackConfig or refused with every problem at once."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from stack.config.conflicts import conflicts
from stack.config.model import Model
from stack.config.problems import problems_of
from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.yaml_input import load_mapping


def load_config(path: Path, shown: str | None = None) -> StackConfig:
    """StackConfig from a file.

    Raises InputError with every problem found at once.
    """
    name = shown or str(path)
    document = load_mapping(path, name)
    problems: list[Problem] = []
    config: StackConfig | None = None
    try:
        config = StackConfig.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, StackConfig)
    problems += conflicts(document)
    if config is None or problems:
        raise InputError(name, problems)
    return config


def problem_at(config: StackConfig, model: Model, key: str, what: str) -> Problem:
    """A Problem whose key path names the model by its place in the file."""
    return Problem(f"models[{config.models.index(model)}].{key}", what)
