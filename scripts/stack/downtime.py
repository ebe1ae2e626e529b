"""A gap in service is for a person to want, not for a command to cause."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import docker

from stack.apply import Before
from stack.drains import drained
from stack.errors import InputError, Problem
from stack.plan.types import Plan
from stack.roll import DEFAULT_START_SECONDS, shortages, started_within, to_replace
from stack.tree import compare


def refuse_downtime(
    shown: str, state: Path, plan: Plan, files: Mapping[str, bytes], before: Before, client: docker.DockerClient
) -> None:
    """An engine that is replaced while nothing else serves its model is a gap: only when a person wants it.

    shown: the stack file's name in messages.
    """
    if not before.running or not compare(before.files, files):
        return
    replaced = to_replace(plan.project, files, client)
    problems = [
        Problem("models", f"{name} has to be replaced and {what} for about {_gap(state, name)} s. Add a replica, or set"
                " ALLOW_DOWNTIME=1")
        for name, what in shortages(plan, replaced, drained(state), client).items()
    ]  # fmt: skip
    if problems and not os.environ.get("ALLOW_DOWNTIME"):
        raise InputError(shown, problems)


def _gap(state: Path, engine: str) -> int:
    return int(started_within(state).get(engine, DEFAULT_START_SECONDS))
