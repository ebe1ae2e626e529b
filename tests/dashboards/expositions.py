"""What the pinned programs expose, as recorded from a running stack or constructed where none could run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alert_cases import plan
from stack.observe.files import rule_groups
from stack.observe.rule import Recording
from stacks import ROOT

FOLDER = ROOT / "tests/expositions"
# Two GPUs at work, to execute queries on; names are checked against the exposition in FOLDER.
CONSTRUCTED = ROOT / "tests/dashboards/dcgm-constructed.txt"
SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:{(.*)})? \S+")
LABEL = re.compile(r'(\w+)="(?:[^"\\]|\\.)*"')
# Written by Prometheus itself, for each target and each alert.
PROMETHEUS_OWN = {
    "up": set[str](),
    "ALERTS": {"alertname", "alertstate", "severity"},
}


def samples(text: str) -> Iterator[tuple[str, frozenset[str]]]:
    """(name, names of its labels) of every sample of an exposition."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            found = SAMPLE.match(line)
            assert found, f"not a sample: {line}"
            yield found[1], frozenset(LABEL.findall(found[2] or ""))


def known() -> dict[str, set[str]]:
    """Metric -> its labels, over all expositions, Prometheus' own series and the recording rules."""
    metrics = {name: set(labels) for name, labels in PROMETHEUS_OWN.items()}
    for path in FOLDER.glob("*.txt"):
        for name, labels in samples(path.read_text()):
            metrics.setdefault(name, set()).update(labels)
    for name in recorded():
        metrics.setdefault(name, set())
    return metrics


def recorded() -> set[str]:
    """Names that the recording rules of a stack with objectives write."""
    groups = [group for made in rule_groups(plan().as_dict()).values() for group in made]
    return {rule.name for group in groups for rule in group.rules if isinstance(rule, Recording)}
