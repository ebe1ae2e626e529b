"""What it is to check something: try it once, time it, and say what to look at next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import docker
import requests

from stack.gateway_client import Refused


class SkippedError(Exception):
    """The check does not apply to this stack; the message says why."""


@dataclass(frozen=True)
class Check:
    """One thing that is tried. `look` is what a person does next when it fails."""

    name: str
    look: str
    attempt: Callable[[], str] = field(compare=False)


@dataclass(frozen=True)
class Result:
    """What came of a check; seconds of wall time."""

    name: str
    status: str  # passed, failed or skipped
    seconds: float
    detail: str
    look: str

    @property
    def failed(self) -> bool:
        return self.status == "failed"


def run_checks(checks: Iterable[Check], tell: Callable[[Result], None]) -> list[Result]:
    """Run each check once, telling of each as it ends."""
    results = []
    for check in checks:
        began = time.monotonic()
        try:
            status, detail = "passed", check.attempt()
        except SkippedError as reason:
            status, detail = "skipped", str(reason)
        except (requests.RequestException, Refused, LookupError, ValueError, docker.errors.DockerException) as error:
            status, detail = "failed", f"{type(error).__name__}: {error}".splitlines()[0][:300]
        result = Result(check.name, status, time.monotonic() - began, detail, check.look if status == "failed" else "")
        results.append(result)
        tell(result)
    return results


def answers(engine: Mapping[str, Any]) -> bool:
    """Whether an engine of a plan.json can be asked: a part that follows another has nothing that listens."""
    return "--headless" not in engine["argv"]
