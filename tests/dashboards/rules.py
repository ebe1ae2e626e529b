"""The rules of Grafana's dashboard linter (github.com/grafana/dashboard-linter, read 2026-06), for every panel type.

The linter itself asks its panel rules of a few types only; here heat maps, tables and state timelines keep them too.
The two LogQL rules have nothing to look at: no dashboard asks Loki. Each rule yields what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser
from promql_parser import Call, MatrixSelector, SubqueryExpr

from dashboards.reading import (
    PLACEHOLDERS,
    Target,
    nodes,
    panels,
    selectors,
    targets,
    variable_query,
    variables,
)
from stack.report.panels import fill_in

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATES = {"rate", "irate", "increase"}
# Units that the panels use, as grafana-data's valueFormats spell them; another one is a typing error until it is here.
UNITS = {"none", "short", "percentunit", "s", "bytes", "Bps", "reqps", "ops", "celsius", "watt"}


def template_datasource(dashboard: Mapping[str, Any]) -> Iterator[str]:
    sources = variables(dashboard, "datasource")
    if [(source["name"], source["label"], source["query"]) for source in sources] != [
        ("datasource", "Data source", "prometheus")
    ]:
        yield f"data sources {sources}"


def template_job_instance(dashboard: Mapping[str, Any]) -> Iterator[str]:
    found = {variable["name"]: variable for variable in variables(dashboard)}
    for name in ("job", "instance"):
        variable = found.get(name)
        if variable is None:
            yield f"no variable {name}"
        elif (variable["label"], variable["multi"], variable.get("allValue")) != (name.title(), True, ".+"):
            yield f"variable {name}: label, multi or allValue"


def template_queries(dashboard: Mapping[str, Any]) -> Iterator[str]:
    """template-label-promql and template-on-time-change-reload."""
    for variable in variables(dashboard):
        if variable["datasource"] != DATA_SOURCE:
            yield f"variable {variable['name']}: data source"
        if variable["refresh"] != 2:
            yield f"variable {variable['name']}: not refreshed with the time range"
        series, _ = variable_query(variable)
        yield from _parsed(f"variable {variable['name']}", series)


def panel_datasource(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        for part in (panel, *panel["targets"]):
            if part.get("datasource") != DATA_SOURCE:
                yield f"{panel['title']}: data source {part.get('datasource')}"


def panel_title_description(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield f"panel {panel['id']} ({panel.get('title')}): title or description"


def panel_units(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        if defaults.get("unit") not in UNITS:
            yield f"{panel['title']}: unit {defaults.get('unit')}"


def panel_no_targets(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        if not panel.get("targets"):
            yield f"{panel['title']}: no query"


def target_promql(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for target in targets(dashboard):
        yield from _parsed(target.panel["title"], target.expr)


def target_rate_interval(dashboard: Mapping[str, Any]) -> Iterator[str]:
    """A rate's range is $__rate_interval; increase may say the hour that it counts in."""
    for target, call, argument in _calls(dashboard):
        if isinstance(argument, MatrixSelector | SubqueryExpr):
            seconds = argument.range.total_seconds() if argument.range else 0
            if call.func.name in ("rate", "irate") and f"{seconds:.0f}s" != PLACEHOLDERS["__rate_interval"]:
                yield f"{target.panel['title']}: {target.expr} without $__rate_interval"


def target_job_instance(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for target in targets(dashboard):
        for selector in selectors(target.tree()):
            matchers = {str(matcher) for matcher in selector.matchers.matchers}
            for label in ("job", "instance"):
                if f'{label}=~"${label}"' not in matchers:
                    yield f'{target.panel["title"]}: {selector.name} without {label}=~"${label}"'


def target_counter_agg(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for target in targets(dashboard):
        tree = target.tree()
        within = [
            argument.vector_selector.name
            for node in nodes(tree)
            if isinstance(node, Call) and node.func.name in RATES
            for argument in node.args
            if isinstance(argument, MatrixSelector)
        ]
        for selector in selectors(tree):
            if (selector.name or "").endswith("_total"):
                if selector.name in within:
                    within.remove(selector.name)
                else:
                    yield f"{target.panel['title']}: {selector.name} without rate or increase"


def uneditable(dashboard: Mapping[str, Any]) -> Iterator[str]:
    if dashboard["editable"] is not False:
        yield "editable"


def _parsed(where: str, expr: str) -> Iterator[str]:
    try:
        promql_parser.parse(fill_in(expr, PLACEHOLDERS))
    except ValueError as error:
        yield f"{where}: {expr}: {error}"


def _calls(dashboard: Mapping[str, Any]) -> Iterator[tuple[Target, Call, Any]]:
    for target in targets(dashboard):
        for node in nodes(target.tree()):
            if isinstance(node, Call):
                for argument in node.args:
                    yield target, node, argument


RULES = (
    template_datasource,
    template_job_instance,
    template_queries,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    target_promql,
    target_rate_interval,
    target_job_instance,
    target_counter_agg,
    uneditable,
)
