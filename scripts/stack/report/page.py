"""Sections of panels with their series -> one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from stack.report.charts import chart, most_telling, spark
from stack.report.panels import Panel
from stack.report.source import Series, Span
from stack.report.units import shown

STYLE = Path(__file__).with_name("style.css")


@dataclass(frozen=True)
class Shown:
    """A section with what its panels show."""

    title: str
    panels: Sequence[tuple[Panel, Sequence[Series]]]


def page(title: str, span: Span, sections: Sequence[Shown], facts: Mapping[str, str]) -> str:
    """The whole file. facts: what it was made from, for the foot of the page."""
    body = "".join(_section(section, span) for section in sections)
    told = "".join(f"<p>{escape(name)}: {escape(value)}</p>" for name, value in facts.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # nothing is fetched, whatever a label says
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>\n{STYLE.read_text()}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1><p>{_range(span)}</p></header>\n<main>{body}</main>\n"
        f"<footer>{told}</footer></body></html>\n"
    )


def _range(span: Span) -> str:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (span.start, span.end))
    # the day once, where it is the same
    until = f"{end:%H:%M:%S}" if begin.date() == end.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    return f"{begin:%Y-%m-%d %H:%M:%S} to {until} UTC, a point every {span.step} s"


def _section(section: Shown, span: Span) -> str:
    numbers = all(panel.kind == "stat" for panel, _ in section.panels)
    draw, kind = (_number, "numbers") if numbers else (_panel, "panels")
    cards = "".join(draw(panel, series, span) for panel, series in section.panels)
    return f'<section><h2>{escape(section.title)}</h2><div class="{kind}">{cards}</div></section>\n'


def _number(panel: Panel, series: Sequence[Series], span: Span) -> str:
    if not series:
        value, colour, course = "no data", "", ""
    else:
        last = series[0].points[-1][1]
        value, colour, course = shown(last, panel.unit), _colour(panel, last), spark(series[0], span)
    return (
        f'<div class="card number" title="{escape(panel.description)}"><h3>{escape(panel.title)}</h3>'
        f'<strong class="{colour}">{escape(value)}</strong>{course}</div>'
    )


def _colour(panel: Panel, value: float) -> str:
    reached = [colour for level, colour in panel.levels if level is None or value >= level]
    return reached[-1] if reached else ""


def _panel(panel: Panel, series: Sequence[Series], span: Span) -> str:
    drawn = chart(panel, series, span) if series else ""
    picture = drawn + _legend(panel, series) if drawn else '<p class="empty">no data in this time</p>'
    return f'<article class="card"><h3>{escape(panel.title)}</h3><p>{escape(panel.description)}</p>{picture}</article>'


def _legend(panel: Panel, series: Sequence[Series]) -> str:
    if panel.kind == "heatmap":
        return '<span class="key">Darker or brighter: more requests in that bucket.</span>'
    drawn = most_telling(panel, series)
    left_out = len(series) - len(drawn)
    more = f"<p>and {left_out} more, none of them higher</p>" if left_out else ""
    if panel.kind == "state-timeline":
        keys = "".join(
            f'<span class="key"><span class="k {escape(colour)}"></span>{escape(text)}</span>'
            for text, colour in panel.meaning.values()
        )
        return keys + more
    rows = "".join(
        f'<tr><td><span class="k k{number}"></span>{escape(one.name)}</td>'
        + "".join(f"<td>{escape(shown(value, panel.unit))}</td>" for value in _figures(one))
        + "</tr>"
        for number, one in enumerate(drawn)
    )
    return f"<table><tr><th></th><th>last</th><th>mean</th><th>max</th></tr>{rows}</table>{more}"


def _figures(one: Series) -> tuple[float, float, float]:
    values = [value for _, value in one.points]
    return values[-1], sum(values) / len(values), max(values)
