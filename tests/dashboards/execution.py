"""Executing the dashboards' queries at a Prometheus, as Grafana would: variables first, then each query."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from dashboards.reading import BUILT_IN, Target, fill_in, variable_query, variables

SECONDS, STEP = 300, 15


@dataclass(frozen=True)
class Prometheus:
    """The HTTP API of one server."""

    url: str

    def get(self, path: str, parameters: Mapping[str, Any]) -> Any:
        """`data` of an answer. Raises RequestException, and ValueError with Prometheus' own words."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        if answer["status"] != "success":
            raise ValueError(f"{path} {parameters}: {answer['error']}")
        return answer["data"]

    def chosen(self, dashboard: Mapping[str, Any]) -> dict[str, str]:
        """Every variable at "All", as Grafana fills it in: allValue, or each value that there is."""
        values = dict(BUILT_IN)
        for variable in variables(dashboard):
            series, label = variable_query(variable)
            found = self.get(f"label/{label}/values", {"match[]": fill_in(series, values)})
            if not found:
                raise LookupError(f"variable {variable['name']}: no values")
            every = "(" + "|".join(re.escape(value).replace("\\", "\\\\") for value in found) + ")"
            values[variable["name"]] = variable.get("allValue") or every
        return values

    def problem(self, target: Target, values: Mapping[str, str]) -> str:
        """Why a query shows nothing, or nothing in its legend; empty where it shows something."""
        query = fill_in(target.expr, values)
        now = time.time()
        if target.target.get("instant"):
            result = self.get("query", {"query": query, "time": now})["result"]
            found = [(series["metric"], [series["value"]]) for series in result]
        else:
            parameters = {"query": query, "start": now - SECONDS, "end": now, "step": STEP}
            result = self.get("query_range", parameters)["result"]
            found = [(series["metric"], series["values"]) for series in result]
        shown = [labels for labels, points in found if _any_number(points)]
        if not shown:
            return f"no data: {query}" if not found else f"only NaN: {query}"
        missing = target.legend_labels - {label for labels in shown for label in labels}
        return f"no label {', '.join(sorted(missing))} for the legend: {query}" if missing else ""


def _any_number(points: Sequence[Sequence[Any]]) -> bool:
    return any(not math.isnan(float(value)) for _, value in points)
