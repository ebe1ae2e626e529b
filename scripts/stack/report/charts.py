"""Series -> SVG. No script and no picture from elsewhere; colours come from the page's style, for light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise

from stack.report.panels import Panel
from stack.report.source import Series, Span
from stack.report.units import shown, ticks, times

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 8, 24
# as many as there are colours that can be told apart
MOST_SERIES = 8
MOST_ROWS = 12
HEAT_STEPS = 8
# A gap of more than this many steps is a gap: nothing was scraped.
GAP = 2.5

# Colours of levels, the better first.
WORSE = ("green", "yellow", "red")

Place = Callable[[float], float]


def chart(panel: Panel, series: Sequence[Series], span: Span) -> str:
    """The picture of one panel."""
    draw = {"heatmap": _heat_map, "state-timeline": _states}.get(panel.kind, _curves)
    return draw(panel, series, span)


def most_telling(panel: Panel, series: Sequence[Series]) -> list[Series]:
    """The series that are drawn: where there are too many, the highest."""
    most = MOST_ROWS if panel.kind == "state-timeline" else MOST_SERIES
    if len(series) <= most:
        return list(series)
    highest = sorted(series, key=lambda one: max(value for _, value in one.points), reverse=True)[:most]
    return [one for one in series if one in highest]


def spark(series: Series, span: Span) -> str:
    """The course of a number, without axes."""
    highest = max(value for _, value in series.points) or 1
    x = _across(span, 0, 120)
    line = " ".join(f"{x(at):.1f},{28 - 24 * value / highest:.1f}" for at, value in series.points)
    return f'<svg class="spark" viewBox="0 0 120 30" preserveAspectRatio="none"><polyline points="{line}"/></svg>'


def _curves(panel: Panel, series: Sequence[Series], span: Span) -> str:
    drawn = most_telling(panel, series)
    tops = _stacked(drawn) if panel.stacked else [list(one.points) for one in drawn]
    grounds = [dict.fromkeys((at for at, _ in tops[0]), 0.0), *(dict(top) for top in tops)]
    highest = max(value for points in tops for _, value in points)
    marks = ticks(panel.maximum or highest, panel.unit)
    x, y = _across(span, LEFT, WIDTH - RIGHT), _up(marks[-1])
    parts = [_grid(marks, panel.unit, y), _time_axis(span, x)]
    for (_, below), (value, above) in pairwise(panel.levels):
        if value is not None and value <= marks[-1]:
            worse = max(below, above, key=WORSE.index)
            parts.append(f'<line class="level {worse}" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_at(y(value))}/>')
    # the first series last, so that where curves meet it is the one that is seen
    for number, (one, points) in reversed(list(enumerate(zip(drawn, tops, strict=True)))):
        for run in _runs(points, span):
            line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
            if panel.stacked:
                ground = " ".join(f"{x(at):.1f},{y(grounds[number][at]):.1f}" for at, _ in reversed(run))
                parts.append(f'<polygon class="area f{number}" points="{line} {ground}"/>')
            if len(run) == 1:
                parts.append(f'<circle class="c{number} dot" cx="{x(run[0][0]):.1f}" cy="{y(run[0][1]):.1f}" r="2"/>')
            parts.append(
                f'<polyline class="line c{number}" points="{line}"><title>{escape(one.name)}</title></polyline>'
            )
    return _svg(panel.title, parts)


def _heat_map(panel: Panel, series: Sequence[Series], span: Span) -> str:
    rows = _buckets(series)
    x = _across(span, LEFT, WIDTH - RIGHT)
    height = (HEIGHT - TOP - BOTTOM) / max(1, len(rows))
    most = max((count for _, cells in rows for count in cells.values()), default=0)
    if most <= 0:
        return ""
    parts = [_time_axis(span, x)]
    width = max(1.0, x(span.start + span.step) - x(span.start))
    for row, (edge, cells) in enumerate(rows):
        top = HEIGHT - BOTTOM - (row + 1) * height
        every = max(1, round(14 / height))
        if row % every == 0:
            label = f"≤ {shown(edge, panel.unit)}" if edge != float("inf") else "more"
            parts.append(f'<text class="y" x="{LEFT - 6}" y="{top + height / 2 + 3.5:.1f}">{label}</text>')
        for at, count in cells.items():
            # a root, so that a few slow requests are seen beside many fast ones
            heat = max(1, round(HEAT_STEPS * (count / most) ** 0.5))
            left = max(LEFT, x(at) - width)
            if count > most * 1e-4:
                parts.append(
                    f'<rect class="h{heat}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
                )
    return _svg(panel.title, parts)


def _states(panel: Panel, series: Sequence[Series], span: Span) -> str:
    drawn = most_telling(panel, series)
    left, height = 214, min(24.0, (HEIGHT - TOP - BOTTOM) / len(drawn))
    x = _across(span, left, WIDTH - RIGHT)
    parts = [_time_axis(span, x, left)]
    for row, one in enumerate(drawn):
        top = TOP + row * height
        name = one.name if len(one.name) <= 32 else one.name[:31] + "…"
        parts.append(f'<text class="y" x="{left - 6}" y="{top + height / 2 + 3.5:.1f}">{escape(name)}</text>')
        for value, begin, end in _spells(one.points, span):
            text, colour = panel.meaning.get(f"{value:g}", (f"{value:g}", "text"))
            parts.append(
                f'<rect class="s {escape(colour)}" x="{x(begin):.1f}" y="{top + 2:.1f}" height="{height - 4:.1f}"'
                f' width="{max(1.0, x(end) - x(begin)):.1f}"><title>{escape(text)}</title></rect>'
            )
    return _svg(panel.title, parts)


def _buckets(series: Sequence[Series]) -> list[tuple[float, dict[float, float]]]:
    """(upper edge, time -> observations in this bucket alone), the used buckets and those between, lowest first."""
    cumulative = sorted((float(one.labels["le"]), dict(one.points)) for one in series)
    rows: list[tuple[float, dict[float, float]]] = []
    below: Mapping[float, float] = {}
    for edge, counts in cumulative:
        rows.append((edge, {at: max(0.0, count - below.get(at, 0.0)) for at, count in counts.items()}))
        below = counts
    used = [number for number, (_, cells) in enumerate(rows) if any(count > 0 for count in cells.values())]
    return rows[max(0, used[0] - 1) : used[-1] + 2] if used else []


def _stacked(series: Sequence[Series]) -> list[list[tuple[float, float]]]:
    """Each series' upper edge, the first at the bottom; a missing point counts as nothing."""
    every = sorted({at for one in series for at, _ in one.points})
    ground = dict.fromkeys(every, 0.0)
    tops = []
    for one in series:
        own = dict(one.points)
        ground = {at: low + own.get(at, 0.0) for at, low in ground.items()}
        tops.append(list(ground.items()))
    return tops


def _runs(points: Sequence[tuple[float, float]], span: Span) -> list[list[tuple[float, float]]]:
    """Points that belong together: where a scrape is missing, so is the line."""
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] <= GAP * span.step:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _spells(points: Sequence[tuple[float, float]], span: Span) -> list[tuple[float, float, float]]:
    """(value, from, to) for each time that a value stayed the same."""
    spells: list[tuple[float, float, float]] = []
    for at, value in points:
        if spells and spells[-1][0] == value and at - spells[-1][2] <= GAP * span.step:
            spells[-1] = (value, spells[-1][1], at)
        else:
            begin = spells[-1][2] if spells and at - spells[-1][2] <= GAP * span.step else max(span.start, at)
            spells.append((value, begin, at))
    return spells


def _across(span: Span, left: float, right: float) -> Place:
    return lambda at: left + (right - left) * (at - span.start) / (span.end - span.start)


def _up(highest: float) -> Place:
    return lambda value: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.02, max(0.0, value / highest))


def _at(y: float) -> str:
    return f'y1="{y:.1f}" y2="{y:.1f}"'


def _grid(marks: Sequence[float], unit: str, y: Place) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_at(y(mark))}/>'
        f'<text class="y" x="{LEFT - 6}" y="{y(mark) + 3.5:.1f}">{escape(shown(mark, unit))}</text>'
        for mark in marks
    )


def _time_axis(span: Span, x: Place, left: float = LEFT) -> str:
    ground = HEIGHT - BOTTOM
    marks = "".join(
        f'<line class="grid" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{ground + 4}"/>'
        f'<text class="x" x="{x(at):.1f}" y="{HEIGHT - 6}">{label}</text>'
        for at, label in times(span.start, span.end)
    )
    return marks + f'<line class="axis" x1="{left}" x2="{WIDTH - RIGHT}" {_at(ground)}/>'


def _svg(title: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
