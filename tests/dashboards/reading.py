"""The committed dashboards as Grafana reads them: panels, queries, variables, PromQL with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import promql_parser
from promql_parser import VectorSelector

from stack.report.panels import fill_in
from stacks import ROOT

FOLDER = ROOT / "grafana/dashboards"
# so that a parser which knows no Grafana can read what has no values yet; the second is told apart from a real range
PLACEHOLDERS = {"__rate_interval": "8869s", "__range": "6069s", "__interval": "4867s"}


@dataclass(frozen=True)
class Target:
    """One query of one panel."""

    uid: str
    panel: Mapping[str, Any]
    target: Mapping[str, Any]

    @property
    def name(self) -> tuple[str, str]:
        return self.uid, self.panel["title"]

    @property
    def expr(self) -> str:
        return str(self.target["expr"])

    @property
    def legend_labels(self) -> set[str]:
        """Labels that the legend shows, so that the answer must have them."""
        return set(re.findall(r"{{\s*(\w+)\s*}}", self.target.get("legendFormat", "")))

    def tree(self) -> Any:
        """The query parsed. Raises ValueError."""
        return promql_parser.parse(fill_in(self.expr, PLACEHOLDERS))


def load() -> dict[str, dict[str, Any]]:
    """uid -> dashboard, by file name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel but rows, those within folded rows too."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def targets(dashboard: Mapping[str, Any]) -> Iterator[Target]:
    """Every query of every panel."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Target(dashboard["uid"], panel, target)


def variables(dashboard: Mapping[str, Any], kind: str = "query") -> list[dict[str, Any]]:
    """The dashboard's variables of one kind, in order."""
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == kind]


def variable_query(variable: Mapping[str, Any]) -> tuple[str, str]:
    """(series, label) of a label_values query. Raises ValueError."""
    found = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", variable["query"])
    if found is None:
        raise ValueError(f"{variable['name']}: {variable['query']} is no label_values(series, label)")
    return found[1], found[2]


def nodes(tree: Any) -> list[Any]:
    """Every part of a parsed query."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        found.append(node)
        return True

    promql_parser.walk(tree, visit)
    return found


def selectors(tree: Any) -> list[VectorSelector]:
    """Every selector of a query, those with a range too."""
    return [node for node in nodes(tree) if isinstance(node, VectorSelector)]
