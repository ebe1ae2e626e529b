"""Recording rules and alerts as typed data, and how they become Prometheus' rule files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import yaml

Severity = Literal["page", "ticket", "watchdog"]
# Label of alerts about one engine: HostDown silences these of its host, and no others.
ENGINE = "engine"


@dataclass(frozen=True)
class Recording:
    """A recording rule; its name is `level:metric:operations`."""

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As a rule file has it."""
        return {"record": self.name, "expr": self.expr} | ({"labels": dict(self.labels)} if self.labels else {})


@dataclass(frozen=True)
class Alert:
    """An alert.

    seconds: how long it has to be true. severity: page (a person now), ticket (a person this week). summary: one line
    with the value. action: what to do first. threshold: why this number, with its source. about: what kind of thing,
    for inhibition. hold: seconds it goes on firing after it is no longer true.
    """

    name: str
    expr: str
    seconds: int
    severity: Severity
    summary: str
    action: str
    threshold: str
    about: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    hold: int = 0

    def as_dict(self, runbooks: str, patience: float) -> dict[str, Any]:
        """As a rule file has it. runbooks: where they are. patience: factor of every wait."""
        waits = {"for": self.seconds, "keep_firing_for": self.hold}
        labels = {"severity": self.severity, **({"about": self.about} if self.about else {}), **self.labels}
        return {
            "alert": self.name,
            "expr": self.expr,
            **{key: duration(max(1, round(value * patience))) for key, value in waits.items() if value},
            "labels": labels,
            "annotations": {
                "summary": self.summary,
                "description": self.action,
                "threshold": self.threshold,
                "runbook": f"{runbooks.rstrip('/')}/{self.name}.md",
            },
        }


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together, one after the other. interval: seconds; None: Prometheus' own."""

    name: str
    rules: Sequence[Recording | Alert]
    interval: int | None = None


def rule_file(groups: Iterable[Group], runbooks: str, patience: float = 1.0) -> bytes:
    """One rule file."""
    return dump(
        {
            "groups": [
                {"name": group.name}
                | ({"interval": duration(group.interval)} if group.interval else {})
                | {
                    "rules": [
                        rule.as_dict() if isinstance(rule, Recording) else rule.as_dict(runbooks, patience)
                        for rule in group.rules
                    ]
                }
                for group in groups
            ]
        }
    )


def dump(document: object) -> bytes:
    """YAML that a person can read: keys in their order, long lines whole. The document is one that JSON can say."""
    return _dump(json.dumps(document))


@lru_cache(maxsize=256)
def _dump(document: str) -> bytes:
    # of 200 hosts nearly all have the same rules, and writing YAML costs more than all else that is rendered
    return yaml.safe_dump(json.loads(document), sort_keys=False, width=10_000, allow_unicode=True).encode()


def duration(seconds: int) -> str:
    """As Prometheus writes it: the largest unit that leaves nothing over."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def quoted(text: str) -> str:
    """A label value as PromQL writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def any_of(values: Iterable[str]) -> str:
    """A regular expression that matches exactly these label values, quoted for PromQL."""
    return quoted("|".join(re.escape(value).replace("\\-", "-") for value in values))
