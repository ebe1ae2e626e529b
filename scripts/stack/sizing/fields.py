"""Values out of a config.json, checked: a wrong one is an error with the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stack.models.config_json import ModelFilesError

# Wider than any model that exists (405 B: hidden 16384, vocabulary 2.6e5, context 1e7), far from an overflow.
LARGEST = 100_000_000
_MISSING = object()
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}


class Fields:
    """The keys of one section of a config.json. name: the section's, for messages."""

    def __init__(self, document: Mapping[str, Any], path: str, name: str = "") -> None:
        self.document, self.path, self.name = document, path, name

    def error(self, key: str, what: str) -> ModelFilesError:
        """An error that names the file and the key."""
        return ModelFilesError(f"{self.path}: {self.name}{key} {what}")

    def count(self, *keys: str, default: int | object = _MISSING, least: int = 1) -> int:
        """A whole number under the first key that is there."""
        key, value = self._first(keys)
        if value is None:
            if isinstance(default, int):
                return default
            raise self.error(" or ".join(keys), "is missing; the plan needs it")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise self.error(key, f"is {_shown(value)}; a whole number from {least} to {LARGEST} is needed")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.document.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"is {_shown(value)}; true or false is needed")
        return value

    def text(self, *keys: str) -> str | None:
        """A word, or None."""
        key, value = self._first(keys)
        if value is not None and not isinstance(value, str):
            raise self.error(key, f"is {_shown(value)}; text is needed")
        return value

    def words(self, key: str, length: int) -> list[str] | None:
        """A list of one word a layer, or None."""
        value = self.document.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.error(key, f"is {_shown(value)}; a list of words is needed")
        if len(value) != length:
            raise self.error(key, f"has {len(value)} entries for {length} layers")
        return value

    def section(self, key: str) -> Fields | None:
        """A mapping one level down, or None."""
        value = self.document.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(key, f"is {_shown(value)}; a mapping is needed")
        return Fields(value, self.path, f"{self.name}{key}.")

    def _first(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        for key in keys:
            if self.document.get(key) is not None:
                return key, self.document[key]
        return keys[0], None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
