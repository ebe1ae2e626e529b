"""Panels of grafana/dashboards, as the report needs them: what is asked, in which unit, drawn how.

The dashboards are where queries, units and words are kept; here is only which of them the report shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Section -> (dashboard, panel). The first section's panels are numbers.
SHOWN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Now": (
        ("vllm-fleet", "Alerts"),
        ("vllm-fleet", "Targets down"),
        ("vllm-fleet", "Replicas up"),
        ("vllm-fleet", "Requests"),
        ("vllm-fleet", "Answered with 5xx"),
        ("vllm-fleet", "TTFT p99, worst model"),
        ("vllm-fleet", "Waiting in engines"),
        ("vllm-fleet", "KV cache, fullest"),
    ),
    "What clients get": (
        ("vllm-gateway", "Requests by status"),
        ("vllm-serving", "TTFT quantiles"),
        ("vllm-serving", "ITL quantiles"),
        ("vllm-serving", "TTFT distribution"),
        ("vllm-serving", "E2E distribution"),
        ("vllm-serving", "E2E quantiles"),
    ),
    "What the engines do": (
        ("vllm-serving", "Requests by replica"),
        ("vllm-serving", "Running by replica"),
        ("vllm-serving", "Waiting by reason"),
        ("vllm-serving", "Generated tokens by replica"),
        ("vllm-serving", "KV cache by replica"),
        ("vllm-serving", "Prefix cache hits by replica"),
        ("vllm-serving", "Preemptions"),
        ("vllm-serving", "Finish reasons"),
        ("vllm-serving", "Steps"),
    ),
    "What the gateway does": (
        ("vllm-gateway", "State of each replica"),
        ("vllm-gateway", "Queue of each pool"),
        ("vllm-gateway", "Resends of each pool"),
    ),
    "What the machines do": (
        ("vllm-host", "Processor"),
        ("vllm-host", "Memory available"),
        ("vllm-host", "Disk free"),
    ),
    "GPUs": (
        ("vllm-gpu", "Busy"),
        ("vllm-gpu", "Temperature"),
        ("vllm-gpu", "Xid errors by GPU"),
    ),
}
# What a variable without values is filled in with: no label has this value.
NOTHING = "no-value"
# As Grafana's data source has it: the scrape interval of templates/prometheus/prometheus.yml.j2.
SCRAPE_SECONDS = 15


@dataclass(frozen=True)
class Panel:
    """One panel. kind: Grafana's name of it; queries: (PromQL, legend); levels: (from value on, colour).

    meaning: value -> (text, colour), where values stand for states.
    """

    uid: str
    title: str
    description: str
    kind: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    levels: tuple[tuple[float | None, str], ...]
    meaning: Mapping[str, tuple[str, str]]
    stacked: bool
    maximum: float | None


@dataclass(frozen=True)
class Variable:
    """A variable at "All": its values are those of a label of some series. every: what stands for all, if not they."""

    name: str
    series: str
    label: str
    every: str | None


@dataclass(frozen=True)
class Section:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def sections(folder: Path) -> list[Section]:
    """What the report shows. folder: grafana/dashboards. Raises KeyError where a dashboard has lost a panel."""
    boards = {uid: _board(folder, uid) for uid in sorted({uid for shown in SHOWN.values() for uid, _ in shown})}
    by_title = {
        (uid, panel["title"]): panel for uid, board in boards.items() for panel in board["panels"] if "targets" in panel
    }
    return [
        Section(title, tuple(_panel(uid, by_title[uid, name]) for uid, name in shown)) for title, shown in SHOWN.items()
    ]


def variables(folder: Path, uid: str) -> list[Variable]:
    """A dashboard's variables, in the order in which one may need another."""
    found = []
    for entry in _board(folder, uid)["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", entry["query"])
        if asked:
            found.append(Variable(entry["name"], asked[1], asked[2], entry.get("allValue")))
    return found


def fill_in(expr: str, values: Mapping[str, str]) -> str:
    """The query with $name and ${name} replaced; a name without a value stays."""
    return re.sub(r"\$(?:{(\w+)}|(\w+))", lambda found: values.get(found[1] or found[2], found[0]), expr)


def legend(form: str, labels: Mapping[str, str]) -> str:
    """Grafana's legend format with a series' labels in it."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), form).strip() or "value"


def _board(folder: Path, uid: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((folder / f"{uid}.json").read_text())
    return board


def _panel(uid: str, panel: Mapping[str, Any]) -> Panel:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    shown = custom.get("thresholdsStyle", {}).get("mode", "off") != "off" or panel["type"] == "stat"
    steps = defaults.get("thresholds", {}).get("steps", []) if shown else []
    meanings = [mapping["options"] for mapping in defaults.get("mappings", [])]
    return Panel(
        uid=uid,
        title=panel["title"],
        description=panel["description"],
        kind=panel["type"],
        unit=defaults["unit"],
        queries=tuple((target["expr"], target["legendFormat"]) for target in panel["targets"]),
        levels=tuple((step["value"], step["color"]) for step in steps),
        meaning={value: (said["text"], said["color"]) for options in meanings for value, said in options.items()},
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        maximum=defaults.get("max"),
    )
