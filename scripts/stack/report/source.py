"""Where the report's numbers come from: the HTTP API of a Prometheus."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from stack.errors import StackError
from stack.report.panels import NOTHING, SCRAPE_SECONDS, Panel, Variable, fill_in, legend

POINTS = 240


@dataclass(frozen=True)
class Span:
    """The time that is shown, in seconds since 1970, and between two points of it."""

    start: float
    end: float

    @property
    def step(self) -> int:
        """A multiple of the scrape interval, so that a long time is not more points than a screen has."""
        return max(1, math.ceil((self.end - self.start) / POINTS / SCRAPE_SECONDS)) * SCRAPE_SECONDS

    @property
    def first(self) -> float:
        """The first point: the last one is the end, as "now" is what people look at, not up to a step before it."""
        return self.end - (self.end - self.start) // self.step * self.step

    def built_in(self) -> dict[str, str]:
        """Grafana's own variables."""
        # four scrapes and no gap between two points, as Grafana has it
        rate = max(4 * SCRAPE_SECONDS, self.step + SCRAPE_SECONDS)
        return {
            "__rate_interval": f"{rate}s",
            "__range": f"{self.end - self.start:.0f}s",
            "__interval": f"{self.step}s",
        }


@dataclass(frozen=True)
class Series:
    """A curve. points: (seconds since 1970, value), rising, without NaN; labels: as Prometheus gave them."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Prometheus:
    """One server's API."""

    url: str

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """`data` of an answer. Raises StackError with what Prometheus says."""
        session = requests.Session()
        session.trust_env = False  # a proxy of the environment does not know this host
        try:
            answer = session.get(f"{self.url}/api/v1/{path}", params=dict(parameters or {}), timeout=60).json()
        except (requests.RequestException, ValueError) as error:
            raise StackError(
                f"Prometheus at {self.url} does not answer ({type(error).__name__}): `make status`"
            ) from None
        if not isinstance(answer, dict) or answer.get("status") != "success":
            answer = answer if isinstance(answer, dict) else {"error": "this is no Prometheus"}
            raise StackError(f"Prometheus at {self.url}: {answer.get('error')}, asked for {path} {parameters}")
        return answer["data"]

    def version(self) -> str:
        """Its version."""
        return str(self.get("status/buildinfo")["version"])

    def chosen(self, variables: Sequence[Variable], span: Span) -> dict[str, str]:
        """Values of the variables, all of them at "All"; NOTHING where there is no value."""
        values = span.built_in()
        for variable in variables:
            asked = {"match[]": fill_in(variable.series, values), "start": span.start, "end": span.end}
            found = self.get(f"label/{variable.label}/values", asked)
            # PromQL's own quoting on top of the regular expression's
            every = "(" + "|".join(re.escape(value).replace("\\", "\\\\") for value in found) + ")"
            values[variable.name] = variable.every or (every if found else NOTHING)
        return values

    def series(self, panel: Panel, values: Mapping[str, str], span: Span) -> list[Series]:
        """What a panel shows, query after query."""
        found = []
        for expr, form in panel.queries:
            asked = {"query": fill_in(expr, values), "start": span.first, "end": span.end, "step": span.step}
            for entry in self.get("query_range", asked)["result"]:
                pairs = [(float(at), float(value)) for at, value in entry["values"]]
                points = [(at, value) for at, value in pairs if math.isfinite(value)]
                if points:
                    found.append(Series(legend(form, entry["metric"]), entry["metric"], points))
        return found
