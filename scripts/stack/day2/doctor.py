"""What is missing or wrong on this box, found by looking only: nothing is made, changed, locked or started.

Each check is asked for itself: one that fails says so in its line, and the others go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker

from stack.config.folders import absolute, state_dir
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.docker_host import connect
from stack.errors import InputError, StackError
from stack.inputs import ROOT, Inputs, gather
from stack.plan.types import Plan

DOCKER_SECONDS = 15
Status = Literal["ok", "warning", "problem"]
MARKS: dict[Status, str] = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Finding:
    """One line. todo: what a person does next; empty where nothing is to be done."""

    status: Status
    what: str
    detail: str
    todo: str = ""


@dataclass(frozen=True)
class Box:
    """What the checks look at. trouble: why there is no plan, or no client of Docker's engine."""

    config: StackConfig
    inputs: Inputs | None
    plan: Plan | None
    client: docker.DockerClient | None
    trouble: tuple[Finding, ...]

    @property
    def state(self) -> Path:
        """The stack's own folder; it may not be there yet."""
        return state_dir(self.config, ROOT)

    @property
    def shared(self) -> Path:
        """What every stack of the state folder shares."""
        return absolute(ROOT, self.config.paths.state)


Check = Callable[[Box], Iterator[Finding]]


def look(arguments: argparse.Namespace) -> Box:
    """The box as the checks see it. Raises InputError only for a stack file that cannot be read."""
    config = load_config(arguments.stack, str(arguments.stack))
    trouble = []
    client, found, plan = None, None, None
    try:
        client = connect(DOCKER_SECONDS)  # one that hangs is a finding, too
    except InputError as error:
        trouble.append(Finding("problem", "Docker engine", *_halves(str(error).removeprefix("Docker: "))))
    try:
        found = gather(arguments)
        plan = found.plans()[0]
    except (StackError, OSError) as error:
        trouble.append(Finding("problem", "plan", str(error), "nothing can be started before this is mended"))
    return Box(config, found, plan, client, tuple(trouble))


def run(box: Box, checks: Iterable[Check]) -> Iterator[Finding]:
    """Every finding, in the order of the checks."""
    yield from box.trouble
    for check in checks:
        try:
            yield from check(box)
        except Exception as error:  # one check less is no reason to see nothing at all
            name = check.__name__.strip("_").replace("_", " ")
            yield Finding("warning", name, f"could not be looked at: {type(error).__name__}: {error}")


def _halves(message: str) -> tuple[str, str]:
    what, _, todo = message.partition(": ")
    return what, todo
