"""What sections of stack.yaml are made of: the section itself, and values that several of them have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator

# `auto`: the plan chooses. stack.sizing.resolve puts a number in its place before anything else reads the model.
AUTO = -1
UNSAFE_IN_PATHS = ":$'\"\\"


class Section(BaseModel):
    """A mapping of stack.yaml: unknown keys are errors."""

    # strict: "8" is not 8 and yes is not "yes": what a person reads in the file is what runs.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError("use lower-case letters, digits and inner dashes, at most 63")
    return value


def _model_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", value):
        raise ValueError("use letters, digits and . _ / - (at most 128), starting with a letter or digit")
    return value


def _path(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("an empty path, or one with characters that cannot be shown")
    if ".." in Path(value).parts:
        raise ValueError("the path leaves its folder ('..'); give it from the project's folder, or absolute")
    bad = [char for char in UNSAFE_IN_PATHS if char in value]
    if bad:
        raise ValueError(f"{' '.join(bad)} in a path is syntax to Compose or its .env file")
    return value


def _or_auto(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    return AUTO if value == "auto" else handler(value)


Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]
FilePath = Annotated[str, AfterValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
OrAuto = WrapValidator(_or_auto)
