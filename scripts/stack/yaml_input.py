"""YAML from users, read within bounds: a hostile or broken file gives an InputError, never a crash."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.errors import InputError

MAX_BYTES = 4 * 1024 * 1024  # 200 hosts of 8 GPUs are 130 kB
MAX_DEPTH = 40
MAX_VALUES = 60_000  # aliases expanded ("billion laughs"); 200 hosts of 8 GPUs are about 20,000


# libyaml reads ten times as fast and is in PyYAML's wheels; where it is not, Python reads the same.
_FAST: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Constructor(yaml.constructor.SafeConstructor):
    """Refuses a key given twice, where plain YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_mapping(path: Path, shown: str | None = None) -> dict[str, Any]:
    """The mapping in a YAML file.

    shown: name of the file in messages (default: the path as given).
    Raises InputError: unreadable, too large, not UTF-8, not YAML, too deep, aliases in a cycle, a tag that
    would build an object, a key given twice, or anything but a mapping at the top.
    """
    name = shown or str(path)
    text = _read(path, name)
    try:
        document = _document(text)
    except yaml.YAMLError as error:
        raise InputError(name, _describe(error)) from None
    except (RecursionError, ValueError) as error:
        raise InputError(name, f"not usable YAML: {str(error) or 'aliases or nesting without end'}") from None
    except (LookupError, AttributeError, TypeError, OverflowError):
        raise InputError(name, "not usable YAML: a value does not fit its tag (!!bool, !!timestamp ...)") from None
    if document is None:
        raise InputError(name, "the file is empty; stack.example.yaml shows every key")
    if not isinstance(document, dict):
        raise InputError(name, f"a mapping of keys is needed at the top, this is a {_kind(document)}")
    return document


def parsed(text: str | bytes) -> Any:
    """Plain values of a YAML document that no user wrote: the project's own, or what a program left."""
    return yaml.load(text, Loader=_FAST)


def _document(text: str) -> Any:
    try:
        return _built(text, _FAST)
    except yaml.YAMLError:
        return _built(text, yaml.SafeLoader)  # Python's parser says better what is wrong, and where


def _built(text: str, loader: type[yaml.SafeLoader]) -> Any:
    _check_bounds(text, loader)
    node = yaml.compose(text, Loader=loader)
    return None if node is None else _Constructor().construct_document(node)


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(name, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise InputError(name, f"larger than {MAX_BYTES // 1024**2} MiB; this cannot be the right file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(name, f"not UTF-8: byte {raw[error.start]:#04x} at offset {error.start}") from None


@dataclass
class _Extent:
    """Of a node with its aliases expanded: how many values it holds, and how many levels."""

    anchor: str | None
    values: int = 1
    levels: int = 0

    def add(self, child: _Extent) -> None:
        self.values += child.values
        self.levels = max(self.levels, child.levels + 1)


def _check_bounds(text: str, loader: type[yaml.SafeLoader]) -> None:
    # Before the tree is built: composing is recursive, and merging (`<<`) copies what aliases name.
    opened = [_Extent(None)]  # the stream, then each collection that is not closed yet
    known: dict[str, _Extent] = {}
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append(_Extent(event.anchor))
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in {extent.anchor for extent in opened}:
                raise ValueError(f"alias *{event.anchor} refers to what it is part of (a cycle), {_line(event)}")
            opened[-1].add(known.get(event.anchor or "", _Extent(None)))
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent):
            done = opened.pop() if isinstance(event, yaml.CollectionEndEvent) else _Extent(event.anchor)
            known[done.anchor or ""] = done
            opened[-1].add(done)
        if len(opened) + opened[-1].levels > MAX_DEPTH + 1:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels, aliases expanded, {_line(event)}")
        if opened[-1].values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, aliases expanded, {_line(event)}")


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"  # YAML counts from 0


def _describe(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"not YAML text: character {error.character:#06x} at position {error.position} is not allowed"
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = str(getattr(error, "problem", None) or error)
    if "could not determine a constructor" in problem:
        problem += "; tags that build objects are not allowed, write plain values"
    return where + problem


def _kind(value: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "true/false"}.get(
        type(value), type(value).__name__
    )
