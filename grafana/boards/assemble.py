"""A dashboard from its rows of panels and its variables, the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from boards.panels import DATA_SOURCE, AnyPanel

TAG = "vllm-onprem"


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label of some series, all of them to begin with.

    of: series to take them from. any_value: "all" matches what has no value in the list as well (`.+`).
    """

    name: str
    label: str
    of: str
    any_value: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a heading; the widths of each line of them add up to 24."""

    title: str
    panels: Sequence[AnyPanel]


@dataclass(frozen=True)
class Board:
    """A dashboard. uid: also its file's name."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    since: str = "now-1h"

    def json(self) -> str:
        """The file that Grafana provisions; the same bytes each time."""
        return json.dumps(self._build(), cls=JSONEncoder, sort_keys=True, indent=2) + "\n"

    def _build(self) -> dashboard.Dashboard:
        board = (
            builders.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .timezone("browser")
            .time(self.since, "now")
            .refresh("30s")
            .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
            .link(_links())
            .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        )
        for variable in self.variables:
            board.with_variable(_query_variable(variable))
        numbers = iter(range(1, 1000))
        for row in self.rows:
            board.with_row(builders.Row(row.title).id(next(numbers)))
            for panel in row.panels:
                board.with_panel(panel.id(next(numbers)))
        return board.build()


def _query_variable(variable: Variable) -> builders.QueryVariable:
    built = (
        builders.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(DATA_SOURCE)
        .query(f"label_values({variable.of}, {_label(variable)})")
        .multi(True)
        .include_all(True)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
    )
    return built.all_value(".+") if variable.any_value else built


def _label(variable: Variable) -> str:
    # HAProxy has names of its own for what is a pool and a replica elsewhere
    haproxy = {"pool": "proxy", "replica": "server"}
    return haproxy.get(variable.name, variable.name) if variable.of.startswith("haproxy_") else variable.name


def _links() -> builders.DashboardLink:
    return (
        builders.DashboardLink("Other dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(False)
        .keep_time(True)
    )


def scraped(series: str) -> list[Variable]:
    """Host, job and instance of the targets that export a series."""
    return [
        Variable("host", "Host", series),
        Variable("job", "Job", series + '{host=~"$host"}', any_value=True),
        Variable("instance", "Instance", series + '{host=~"$host", job=~"$job"}', any_value=True),
    ]
