"""What a host remembers of its pulls, and what it tells Prometheus of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from stack.errors import StackError

# applied: a new commit is deployed. unchanged: there is none. refused: not signed, or older. failed: it could not be
# deployed. unreachable: the repository did not answer.
Result = Literal["applied", "unchanged", "refused", "failed", "unreachable"]
RESULTS: tuple[Result, ...] = ("applied", "unchanged", "refused", "failed", "unreachable")
GOOD: tuple[Result, ...] = ("applied", "unchanged")


@dataclass(frozen=True)
class Remembered:
    """What was applied last, and how often the commit that could not be applied was tried. Times: Unix seconds."""

    commit: str | None = None
    ref: str | None = None
    signer: str | None = None
    succeeded: float | None = None
    tried: str | None = None
    attempts: int = 0

    def after(self, result: Result, now: float) -> Remembered:
        """After a run that ended like this."""
        return replace(self, succeeded=now) if result in GOOD else self

    def having_applied(self, commit: str, ref: str, signer: str) -> Remembered:
        """A commit is deployed."""
        return replace(self, commit=commit, ref=ref, signer=signer, tried=None, attempts=0)

    def trying(self, commit: str) -> Remembered:
        """A commit is about to be deployed."""
        return replace(self, tried=commit, attempts=self.attempts + 1 if self.tried == commit else 1)

    def given_up(self, commit: str, limit: int) -> bool:
        """Whether a commit was tried often enough: each time, the stack that runs is put back under load."""
        return self.tried == commit and self.attempts >= limit


def load(state: Path) -> Remembered:
    """Raises StackError: damaged. Then nothing is applied, as it is not known what came before."""
    path = _file(state)
    if not path.is_file():
        return Remembered()
    try:
        return Remembered(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise StackError(
            f"{path} is damaged: move it away, and set not_before to the commit that runs (`make releases`)"
        ) from None


def save(state: Path, remembered: Remembered) -> None:
    """Keep it, in one step."""
    _replace(_file(state), json.dumps(asdict(remembered), indent=1) + "\n")


def metrics(remembered: Remembered, result: Result, now: float, interval: int) -> str:
    """For the node exporter's textfile collector."""
    told: list[tuple[str, str, Mapping[str, float]]] = [
        ("success", "Whether the last pull ended well.", {"": float(result in GOOD)}),
        ("result", "How the last pull ended.",
         {f'{{result="{each}"}}': float(each == result) for each in RESULTS}),
        ("last_run_timestamp_seconds", "When the last pull ended.", {"": now}),
        ("interval_seconds", "Time between two pulls.", {"": interval}),
    ]  # fmt: skip
    if remembered.succeeded is not None:
        when = {"": remembered.succeeded}
        told.append(("last_success_timestamp_seconds", "When a pull last ended well.", when))
    if remembered.commit:
        labels = f'{{commit="{remembered.commit}",ref="{_escaped(remembered.ref or "")}"}}'
        told.append(("applied_info", "The commit that was applied last.", {labels: 1.0}))
    lines = []
    for name, text, values in told:
        lines += [f"# HELP node_pull_deploy_{name} {text}", f"# TYPE node_pull_deploy_{name} gauge"]
        lines += [f"node_pull_deploy_{name}{labels} {value:.0f}" for labels, value in values.items()]
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, text: str) -> None:
    """Where the node exporter reads them, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _replace(path: Path, text: str) -> None:
    # not ending in .prom: the exporter reads every file that does
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.chmod(0o644)
    partial.rename(path)


def _file(state: Path) -> Path:
    return state / "pulled.json"
