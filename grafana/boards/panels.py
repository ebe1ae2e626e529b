"""Every kind of panel, defined once: what they all share (data source, ids of queries, legend, tooltip) is set here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, HeatmapTooltip, YAxisConfig
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from boards.queries import Query

DATA_SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"
HEIGHT, STAT_HEIGHT = 8, 4
# Three curves (p50, p95, p99) and more need more than a glance: a table beside the name.
CALCULATIONS = ["lastNotNull", "mean", "max"]

Builder = TypeVar("Builder", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel, statetimeline.Panel)
AnyPanel = timeseries.Panel | stat.Panel | heatmap.Panel | table.Panel | statetimeline.Panel


@dataclass(frozen=True)
class Words:
    """What a panel says of itself. look: what to look at next, or how to read it.

    runbook: file name within docs/runbooks, without .md, where there is one.
    """

    title: str
    look: str
    runbook: str = ""


@dataclass(frozen=True)
class Levels:
    """From which value on it is bad. below: low values are the bad ones."""

    warn: float
    bad: float
    below: bool = False

    def steps(self) -> list[dashboard.Threshold]:
        """As Grafana wants them: rising, the first without a value."""
        colours = [RED, YELLOW, GREEN] if self.below else [GREEN, YELLOW, RED]
        values = [None, *sorted([self.warn, self.bad])]
        return [dashboard.Threshold(value, colour) for value, colour in zip(values, colours, strict=True)]


def graph(
    words: Words,
    unit: str,
    queries: Sequence[Query],
    *,
    width: int = 8,
    stacked: bool = False,
    maximum: float | None = None,
    levels: Levels | None = None,
) -> timeseries.Panel:
    """Curves over time, from zero up. levels: drawn as lines."""
    panel = (
        _dressed(timeseries.Panel(), words, queries, width, HEIGHT)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    if maximum is not None:
        panel.max(maximum)
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if levels is not None:
        panel.thresholds(dashboard_builders.ThresholdsConfig().steps(levels.steps()))
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    return panel


def number(
    words: Words, unit: str, query: Query, *, width: int = 4, levels: Levels | None = None, decimals: int | None = None
) -> stat.Panel:
    """The last value, large, with its course behind it; coloured by levels."""
    steps = levels.steps() if levels else [dashboard.Threshold(None, BLUE)]
    panel = (
        _dressed(stat.Panel(), words, [query], width, STAT_HEIGHT)
        .unit(unit)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.VALUE)
        .orientation(common.VizOrientation.AUTO)
        .thresholds(dashboard_builders.ThresholdsConfig().steps(steps))
        .no_value("no data")
    )
    return panel if decimals is None else panel.decimals(decimals)


def heat_map(words: Words, unit: str, query: Query, *, width: int = 12) -> heatmap.Panel:
    """How many observations fell into each bucket of a Prometheus histogram, over time. unit: of the buckets."""
    panel = _dressed(heatmap.Panel(), words, [query], width, HEIGHT, PromQueryFormat.HEATMAP)
    colours = (
        HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scheme("Viridis")  # told apart by those who do not see red and green
        .scale(heatmap_model.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .reverse(False)
        .fill("dark-blue")
    )
    return (
        panel.calculate(False)
        .color(colours)
        .y_axis(YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .unit(unit)
        .show_legend()
        .tooltip(HeatmapTooltip().mode(common.TooltipDisplayMode.SINGLE).y_histogram(True))
    )


def states(
    words: Words, queries: Sequence[Query], meaning: Mapping[str, tuple[str, str]], *, width: int = 12
) -> statetimeline.Panel:
    """A bar for each series, coloured by its value. meaning: value -> (text, colour)."""
    results = {
        value: dashboard.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(meaning.items())
    }
    return (
        _dressed(statetimeline.Panel(), words, queries, width, HEIGHT)
        .unit("none")
        .mappings([dashboard.ValueMap(options=results)])
        .merge_values(True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .legend(_legend([]))
        .tooltip(_tooltip())
    )


def rows(words: Words, unit: str, query: Query, columns: Mapping[str, str], *, width: int = 24) -> table.Panel:
    """A table of the newest values. columns: label -> heading, in order; labels that are not named are left out."""
    shown = {"Value": "Value"} | dict(columns)
    order = {name: index for index, name in enumerate([*columns, "Value"])}
    organise = dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "includeByName": dict.fromkeys(shown, True),
            "indexByName": order,
            "renameByName": dict(columns),
        },
    )
    return (
        _dressed(table.Panel(), words, [query], width, HEIGHT, PromQueryFormat.TABLE)
        .unit(unit)
        .with_transformation(organise)
        .no_value("none")
    )


def _dressed(
    panel: Builder,
    words: Words,
    queries: Sequence[Query],
    width: int,
    height: int,
    shape: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> Builder:
    panel.title(words.title).description(_description(words)).datasource(DATA_SOURCE).span(width).height(height)
    for number_of, query in enumerate(queries):
        target = (
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + number_of))
            .datasource(DATA_SOURCE)
            .expr(query.expr)
            .legend_format(query.legend)
            .format(shape)
        )
        panel.with_target(target.instant() if shape is PromQueryFormat.TABLE else target.range())
    return panel


def _description(words: Words) -> str:
    if not words.runbook:
        return words.look
    return f"{words.look} Runbook: docs/runbooks/{words.runbook}.md."


def _legend(calculations: Sequence[str] = CALCULATIONS) -> common_builders.VizLegendOptions:
    shape = common.LegendDisplayMode.TABLE if calculations else common.LegendDisplayMode.LIST
    place = common.LegendPlacement.BOTTOM
    return common_builders.VizLegendOptions().display_mode(shape).placement(place).show_legend(True).calcs(
        list(calculations)
    )  # fmt: skip


def _tooltip() -> common_builders.VizTooltipOptions:
    return common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(
        common.SortOrder.DESCENDING
    )  # fmt: skip
