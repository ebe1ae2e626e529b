"""What a model's own config.json says, as far as the plan needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MAX_BYTES = 4 * 1024 * 1024


class ModelFilesError(Exception):
    """The model's files cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class ModelFacts:
    """Numbers of one model. None where the file does not say. weights_bytes: of all weight files together."""

    attention_heads: int | None
    architecture: str | None
    weights_bytes: int = 0


def read_facts(folder: Path) -> ModelFacts:
    """Facts from ``folder/config.json``.

    Raises ModelFilesError: no such folder, no config.json, too large, not JSON, or absurd numbers.
    """
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return replace(_facts(read_config(folder), folder / "config.json"), weights_bytes=weights)


def read_config(folder: Path) -> dict[str, Any]:
    """``folder/config.json`` as it is. Raises ModelFilesError as read_facts does, but for the numbers."""
    check_folder(folder)
    path = folder / "config.json"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelFilesError(
            f"{path}: {error.strerror}; a model folder holds config.json, tokenizer and weights"
        ) from None
    if len(raw) > MAX_BYTES:
        raise ModelFilesError(f"{path}: larger than {MAX_BYTES // 1024**2} MiB, not a model's config.json")
    return json_object(raw, path)


def json_object(raw: bytes, path: Path) -> dict[str, Any]:
    """The JSON object that these bytes of a model's file are. Raises ModelFilesError, naming the file."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ModelFilesError(f"{path}: a JSON object is needed")
    return document


def check_folder(folder: Path) -> None:
    """Raise ModelFilesError unless it is a folder that an engine sees whole when it alone is mounted."""
    if not folder.is_dir():
        raise ModelFilesError(f"{folder} is not a folder on this host")
    strays = [path.name for path in folder.iterdir() if not path.resolve().is_relative_to(folder.resolve())]
    if strays:
        raise ModelFilesError(
            f"{folder}: {', '.join(sorted(strays)[:3])} leads out of the folder, where the engine cannot follow;"
            " copy the files themselves: cp -rL"
        )


def _facts(document: dict[str, Any], path: Path) -> ModelFacts:
    # models that also see or hear keep the language model's numbers one level down
    inner = document.get("text_config")
    text = inner if isinstance(inner, dict) else document
    architectures = document.get("architectures")
    named = isinstance(architectures, list) and architectures and isinstance(architectures[0], str)
    return ModelFacts(
        attention_heads=_count(text, "num_attention_heads", path),
        architecture=architectures[0] if named and isinstance(architectures, list) else None,
    )


def _count(document: dict[str, Any], key: str, path: Path) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ModelFilesError(f"{path}: {key} is {value!r}, a positive whole number is needed")
    return value
