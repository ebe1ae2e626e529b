"""Executing the dashboards' queries at a Prometheus, as Grafana would: variables first, then each query."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.reading import FOLDER, Target
from stack.report.panels import NOTHING, fill_in, variables
from stack.report.source import Prometheus, Span

SECONDS = 300


def chosen(prometheus: Prometheus, uid: str) -> dict[str, str]:
    """Every variable of a dashboard at "All". Raises LookupError: one has no values."""
    now = time.time()
    values = prometheus.chosen(variables(FOLDER, uid), Span(now - SECONDS, now))
    empty = [name for name, value in values.items() if value == NOTHING]
    if empty:
        raise LookupError(f"{uid}: no values of {', '.join(empty)}")
    return values


def problem(prometheus: Prometheus, target: Target, values: Mapping[str, str]) -> str:
    """Why a query shows nothing, or nothing in its legend; empty where it shows something."""
    query, now = fill_in(target.expr, values), time.time()
    if target.target.get("instant"):
        result = prometheus.get("query", {"query": query, "time": now})["result"]
        found = [(series["metric"], [series["value"]]) for series in result]
    else:
        span = Span(now - SECONDS, now)
        asked = {"query": query, "start": span.first, "end": span.end, "step": span.step}
        found = [(series["metric"], series["values"]) for series in prometheus.get("query_range", asked)["result"]]
    shown = [labels for labels, points in found if _any_number(points)]
    if not shown:
        return f"no data: {query}" if not found else f"only NaN: {query}"
    missing = target.legend_labels - {label for labels in shown for label in labels}
    return f"no label {', '.join(sorted(missing))} for the legend: {query}" if missing else ""


def _any_number(points: Sequence[Sequence[Any]]) -> bool:
    return any(not math.isnan(float(value)) for _, value in points)
