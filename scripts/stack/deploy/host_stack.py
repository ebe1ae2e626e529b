"""A stack file as a host of its own gets it: every path in it is that host's, and absolute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

# The keys of a stack file that name a file or a folder of the host.
PATH_KEYS = frozenset(
    {"path", "archive", "certificate", "key", "token_file", "url_file", "password_file", "api_url_file",
     "routing_key_file"}
)  # fmt: skip
RULES = "rules"


def host_stack(document: Mapping[str, Any], state: str) -> dict[str, Any]:
    """The stack file of a host whose folder for state is this one. Relative paths start there.

    Rule files travel with the release: they are in its folder `rules/`.
    """
    found: dict[str, Any] = {key: _with_paths(value, state) for key, value in document.items()}
    given = document.get("paths") or {}
    # a relative paths.state is a checkout's own folder, and a host has its place for it already
    own = {key: path for key, path in given.items() if PurePosixPath(path).is_absolute()}
    found["paths"] = {"state": state, "build": _absolute(state, "build"), **own}
    watch = found.get("observability") or {}
    if watch.get("rules"):
        watch["rules"] = [f"{RULES}/{PurePosixPath(path).name}" for path in watch["rules"]]
    return found


def _with_paths(value: Any, state: str) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _absolute(state, each) if key in PATH_KEYS and isinstance(each, str) else _with_paths(each, state)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_with_paths(each, state) for each in value]
    return value


def _absolute(state: str, path: str) -> str:
    return str(PurePosixPath(state) / path)
