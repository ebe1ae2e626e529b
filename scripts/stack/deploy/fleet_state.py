"""What the hosts of a fleet say of themselves, put together: all are planned with the same models and images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stack.config.schema import StackConfig
from stack.deploy.host_state import HostState, load
from stack.errors import InputError, Problem


def load_all(folder: Path, config: StackConfig) -> dict[str, HostState]:
    """Host -> what it says of itself, from a folder with a `<host>.json` for each. Raises InputError."""
    return {path.stem: load(path, config) for path in sorted(folder.glob("*.json"))}


def merged(states: Mapping[str, HostState], shown: str) -> HostState:
    """What a fleet is planned with. Raises InputError where hosts disagree on what has to be the same everywhere."""
    problems = [
        *_differing("models", {host: state.facts for host, state in states.items()}),
        *_differing("models", {host: state.needs for host, state in states.items()}),
        *_differing("images.archive", {host: {"images": state.archive} for host, state in states.items()}),
        *_other_secrets(states),
    ]
    if problems:
        raise InputError(shown, list(dict.fromkeys(problems)))
    every = list(states.values())
    return HostState(
        facts={name: facts for state in every for name, facts in state.facts.items()},
        needs={name: needs for state in every for name, needs in state.needs.items()},
        cordoned=frozenset().union(*(state.cordoned for state in every)),
        archive=next((state.archive for state in every if state.archive), None),
    )


def _differing(key: str, of_hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    first: dict[str, tuple[str, Any]] = {}
    for host, found in of_hosts.items():
        for name, value in found.items():
            if value is None:
                continue
            other, theirs = first.setdefault(name, (host, value))
            if theirs != value:
                what = f"{name} on host {host!r} is another than on {other!r}; a pool's replicas have to be the same"
                yield Problem(key, what)


def _other_secrets(states: Mapping[str, HostState]) -> Iterator[Problem]:
    named = {
        host: state.gateway.engine_keys for host, state in states.items() if state.gateway.engine_keys != "none-yet"
    }
    if len(set(named.values())) > 1:
        hosts = ", ".join(named)
        yield Problem("", f"the engines' key is not the same on {hosts}: the controller hands out one, deploy again")
    pairs = {host: state.gateway.certificate for host, state in states.items()}
    pairs = {host: name for host, name in pairs.items() if name != "none-yet"}
    if len(set(pairs.values())) > 1:
        yield Problem("gateway.tls", f"the certificate is not the same on {', '.join(pairs)}: clients would see two")
