"""Two versions of vLLM compared, as far as this stack is concerned. Pure: the facts come from in_vllm/facts.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Where the names of metrics stand that this project reads.
READERS = ("prometheus", "grafana", "templates", "compose/engine", "scripts/stack")
METRIC = re.compile(r"vllm:[a-z][a-z0-9_]+")
# What Prometheus' client adds to a name, and recording rules and histograms show.
SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created")
SHOWN = 160


@dataclass(frozen=True)
class Facts:
    """What one version knows: see in_vllm/facts.py. refusals: one for each argv that it was asked about."""

    version: str
    flags: Mapping[str, str]
    metrics: Sequence[str]
    variables: Sequence[str]
    refusals: Sequence[str | None]


@dataclass(frozen=True)
class Difference:
    """One thing that differs. breaks: the stack would not start, or would lose something it relies on."""

    kind: Literal["argv", "variable", "metric", "flag gone", "flag new", "default"]
    name: str
    what: str
    breaks: bool = False
    concerns: bool = False


def differences(
    old: Facts, new: Facts, argvs: Mapping[tuple[str, ...], str], variables: Iterable[str], used_metrics: Iterable[str]
) -> list[Difference]:
    """What would change for a stack. argvs: argv -> served_model_name, in the order of the refusals.

    variables: names that the stack sets. used_metrics: names that rules, dashboards and checks read. What breaks
    comes first, then what concerns a flag that the stack sets.
    """
    ours = {word.split("=", 1)[0] for argv in argvs for word in argv if word.startswith("--")}
    found = [
        *_refused(new, argvs),
        *_variables(old, new, set(variables)),
        *_metrics(old, new, {base_name(name, {*old.metrics}) for name in used_metrics}),
        *_flags(old, new, ours),
    ]
    return sorted(found, key=lambda one: (not one.breaks, not one.concerns))


def base_name(metric: str, known: set[str]) -> str:
    """The name as vLLM's sources have it, of a name as Prometheus shows it."""
    shorter = (metric.removesuffix(suffix) for suffix in SUFFIXES if metric.endswith(suffix))
    return next((name for name in (metric, *shorter) if name in known), metric)


def metrics_read(root: Path) -> set[str]:
    """Names of vLLM's metrics that stand in rules, dashboards, templates and checks of the project."""
    files = (path for folder in READERS for path in (root / folder).rglob("*") if path.is_file())
    readers = (path for path in files if path.suffix != ".pyc" and path.parent != Path(__file__).parent)
    return {name for path in readers for name in METRIC.findall(path.read_text(errors="replace"))}


def facts_from(document: Mapping[str, Any]) -> Facts:
    """Facts as in_vllm/facts.py printed them."""
    return Facts(**document)


def _refused(new: Facts, argvs: Mapping[tuple[str, ...], str]) -> list[Difference]:
    return [
        Difference("argv", model, f"its flags are refused: {refusal}", breaks=True)
        for model, refusal in zip(argvs.values(), new.refusals, strict=True)
        if refusal
    ]


def _variables(old: Facts, new: Facts, ours: set[str]) -> list[Difference]:
    gone = {name for name in ours if name in old.variables and name not in new.variables}
    return [Difference("variable", name, "the stack sets it, and it is gone", breaks=True) for name in sorted(gone)]


def _metrics(old: Facts, new: Facts, used: set[str]) -> list[Difference]:
    gone = sorted(set(old.metrics) - set(new.metrics))
    added = sorted(set(new.metrics) - set(old.metrics))
    return [
        Difference("metric", name, "gone" + (", and this project reads it" if name in used else ""), name in used)
        for name in gone
    ] + [Difference("metric", name, "new") for name in added]


def _flags(old: Facts, new: Facts, ours: set[str]) -> list[Difference]:
    def flag(name: str) -> bool:
        return name in ours or "--no-" + name[2:] in ours

    was, is_now = old.flags, new.flags
    gone, added = sorted(was.keys() - is_now.keys()), sorted(is_now.keys() - was.keys())
    changed = sorted(name for name in was.keys() & is_now.keys() if was[name] != is_now[name])
    return [
        *(Difference("flag gone", name, f"default was {_short(was[name])}", concerns=flag(name)) for name in gone),
        *(Difference("default", name, _change(was[name], is_now[name]), concerns=flag(name)) for name in changed),
        *(Difference("flag new", name, f"default {_short(is_now[name])}") for name in added),
    ]


def _change(old: str, new: str) -> str:
    before, after = old.split(", "), new.split(", ")
    if len(before) == 1 or len(after) == 1:
        return f"{_short(old)} -> {_short(new)}"
    # settings within settings: only those that differ
    gone, come = [part for part in before if part not in after], [part for part in after if part not in before]
    return _short("; ".join([*(f"- {part}" for part in gone), *(f"+ {part}" for part in come)]))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
