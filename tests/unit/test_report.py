"""The report's page from given series: what is drawn, in which unit, and that it needs nothing from elsewhere."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stack.report.charts import MOST_SERIES, chart
from stack.report.page import Shown, page
from stack.report.panels import Panel, fill_in, legend, sections, variables
from stack.report.source import Series, Span
from stack.report.units import shown, ticks, times
from stacks import ROOT
from unit.test_scripts import run

DASHBOARDS = ROOT / "grafana/dashboards"
SPAN = Span(1_795_000_000, 1_795_003_600)
CURVE = Panel("u", "Some curve", "Look at it.", "timeseries", "s", (("x", "{{a}}"),), (), {}, False, None)


def like(**changes: object) -> Panel:
    return Panel(**{**vars(CURVE), **changes})


def points(*values: float, begin: float = SPAN.start, step: int = SPAN.step) -> list[tuple[float, float]]:
    return [(begin + step * number, value) for number, value in enumerate(values)]


def drawn(panel: Panel, *series: Series) -> ElementTree.Element:
    return ElementTree.fromstring(chart(panel, series, SPAN))


def of_class(picture: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in picture.iter() if name in element.get("class", "").split()]


class Page(HTMLParser):
    """Tags that were opened and not closed, and every attribute that could fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "xlink:href", "onload")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_panel_that_the_report_shows_is_in_a_dashboard() -> None:
    found = sections(DASHBOARDS)
    assert [panel.kind for panel in found[0].panels] == ["stat"] * len(found[0].panels)
    kinds = {panel.kind for section in found[1:] for panel in section.panels}
    assert kinds == {"timeseries", "heatmap", "state-timeline"}
    assert all(panel.queries and panel.description for section in found for panel in section.panels)


def test_variables_are_filled_in_as_grafana_does() -> None:
    names = [variable.name for variable in variables(DASHBOARDS, "vllm-gateway")]
    assert names == ["host", "job", "instance", "pool", "replica"]
    assert [variable.label for variable in variables(DASHBOARDS, "vllm-gateway")][-2:] == ["proxy", "server"]
    assert fill_in('x{a=~"$a", b="${b}"}[$__rate_interval]', {"a": ".+", "__rate_interval": "1m"}) == (
        'x{a=~".+", b="${b}"}[1m]'
    )
    assert legend("{{a}} of {{ b }}", {"a": "one"}) == "one of"


@pytest.mark.parametrize(
    ("seconds", "step", "rate"), [(600, 15, "60s"), (3600, 15, "60s"), (86400, 360, "375s"), (60, 15, "60s")]
)
def test_points_are_no_more_than_a_screen_has_and_rates_leave_no_gap(seconds: int, step: int, rate: str) -> None:
    span = Span(0, seconds)
    assert (span.step, span.built_in()["__rate_interval"]) == (step, rate)


@pytest.mark.parametrize("seconds", [1, 14, 15, 61, 3599, 86400])
def test_the_last_point_is_the_end_and_the_first_is_not_before_the_start(seconds: int) -> None:
    span = Span(1000, 1000 + seconds)
    assert (span.end - span.first) % span.step == 0
    assert span.start <= span.first < span.start + span.step


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 s"), (0.0123, "s", "12.3 ms"), (0.00004, "s", "40 µs"), (1.5, "s", "1.5 s"), (600, "s", "10 min"),
        (0.9999, "percentunit", "100 %"), (0.12345, "percentunit", "12.3 %"), (0.0004, "percentunit", "0.04 %"),
        (3 * 2**30, "bytes", "3 GiB"), (1536, "Bps", "1.5 KiB/s"), (12.34, "reqps", "12.3 req/s"),
        (1234, "short", "1234"), (12345, "short", "12.3 k"), (2.5e6, "short", "2.5 M"), (61, "celsius", "61 °C"),
    ],
)  # fmt: skip
def test_numbers_are_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


@pytest.mark.parametrize(
    ("highest", "unit"), [(0.97, "short"), (1, "percentunit"), (7.3, "s"), (3e9, "bytes"), (0, "s"), (1e-7, "s")]
)
def test_an_axis_has_a_few_even_marks_up_to_the_highest_value(highest: float, unit: str) -> None:
    marks = ticks(highest, unit)
    assert marks[0] == 0
    assert marks[-1] >= highest * 0.999
    assert 2 <= len(marks) <= 6
    gaps = [after - before for before, after in pairwise(marks)]
    assert all(math.isclose(gap, gaps[0]) for gap in gaps)


def test_times_are_round_and_in_utc() -> None:
    marks = times(1_795_000_000, 1_795_003_600)
    assert [label for _, label in marks] == ["11:10", "11:20", "11:30", "11:40", "11:50", "12:00"]


def test_a_missing_scrape_is_a_gap_in_the_line() -> None:
    whole = Series("a", {}, points(1, 2, 3, 4))
    torn = Series("a", {}, [*points(1, 2), *points(3, 4, begin=SPAN.start + 20 * SPAN.step)])
    assert len(of_class(drawn(CURVE, whole), "line")) == 1
    assert len(of_class(drawn(CURVE, torn), "line")) == 2


def test_a_higher_value_is_drawn_higher_and_later_ones_further_right() -> None:
    (line,) = of_class(drawn(CURVE, Series("a", {}, points(1, 4, 2))), "line")
    (x0, y0), (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in line.get("points", "").split())
    assert x0 < x1 < x2
    assert y1 < y2 < y0


@pytest.mark.parametrize(
    ("levels", "colours"),
    [
        (((None, "green"), (2, "yellow"), (3, "red")), ["yellow", "red"]),
        (((None, "red"), (2, "yellow"), (3, "green")), ["red", "yellow"]),
    ],
)
def test_a_level_has_the_colour_of_its_worse_side(levels: object, colours: list[str]) -> None:
    picture = drawn(like(levels=levels), Series("a", {}, points(4, 4)))
    lines = sorted(of_class(picture, "level"), key=lambda line: float(line.get("y1", 0)), reverse=True)
    assert [line.get("class", "").split()[1] for line in lines] == colours


def test_stacked_series_stand_on_each_other() -> None:
    picture = drawn(like(stacked=True), Series("a", {}, points(1, 1)), Series("b", {}, points(2, 2)))
    tops = [float(line.get("points", "").split()[0].split(",")[1]) for line in of_class(picture, "line")]
    (upper,) = of_class(picture, "f1")
    lowest = max(float(pair.split(",")[1]) for pair in upper.get("points", "").split())
    assert lowest == max(tops)  # the upper area begins where the lower one ends


def test_too_many_series_are_cut_to_the_highest_and_it_says_so() -> None:
    series = [Series(f"n{number}", {}, points(number, number)) for number in range(MOST_SERIES + 5)]
    text = page("t", SPAN, [Shown("s", [(CURVE, series)])], {})
    assert "and 5 more, none of them higher" in text
    assert ">n12<" in text
    assert ">n4<" not in text


def test_a_heat_map_shows_each_bucket_alone() -> None:
    # 9 observations up to 0.1 s, 9 of 10 up to 0.5 s: the middle bucket is empty, the last has one
    counts = {"0.1": 9.0, "0.5": 9.0, "+Inf": 10.0}
    series = [Series(edge, {"le": edge}, points(count)) for edge, count in counts.items()]
    picture = drawn(like(kind="heatmap"), *series)
    cells = {element.get("class"): float(element.get("y", 0)) for element in picture.iter() if element.tag == "rect"}
    assert set(cells) == {"h8", "h3"}
    assert cells["h3"] < cells["h8"]  # slower requests are higher up
    labels = [element.text for element in of_class(picture, "y")]
    assert labels == ["≤ 100 ms", "≤ 500 ms", "more"]


def test_a_state_is_a_bar_for_as_long_as_it_lasts() -> None:
    meaning = {"0": ("up", "green"), "4": ("down", "red")}
    series = Series("engine-0", {}, points(0, 0, 4, 4, 4, 0))
    picture = drawn(like(kind="state-timeline", meaning=meaning), series)
    bars = [(bar.get("class"), float(bar.get("width", 0))) for bar in of_class(picture, "s")]
    assert [kind for kind, _ in bars] == ["s green", "s red", "s green"]
    assert bars[1][1] > bars[0][1]


def test_labels_of_clients_cannot_become_part_of_the_page() -> None:
    name = '<script>alert(1)</script><img src="http://x/">'
    series = [Series(name, {"le": "0.1"}, points(1, 2))]
    panels = [(like(kind=kind, meaning={}), series) for kind in ("timeseries", "heatmap", "state-timeline")]
    text = page(name, SPAN, [Shown("Now", [(like(kind="stat"), series)]), Shown("s", panels)], {"Source": name})
    read = Page(text)
    assert read.fetched == []
    assert {"script", "img"} & set(read.tags) == set()
    assert read.open == []
    assert "default-src 'none'" in text


def test_a_panel_without_data_says_so() -> None:
    text = page("t", SPAN, [Shown("Now", [(like(kind="stat"), [])]), Shown("s", [(CURVE, [])])], {})
    assert text.count("no data") == 2
    assert "<polyline" not in text


def test_the_page_says_when_and_from_where() -> None:
    text = page("name: report", SPAN, [], {"Source": "Prometheus 2.53.3 at http://x"})
    assert re.search(r"2026-11-18 11:06:40 to 12:06:40 UTC, a point every 15 s", text)
    assert "Prometheus 2.53.3 at http://x" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--since", "soon"], "--since: 'soon' is no duration"), (["--until", "noon"], "--until: 'noon' is no time")],
)
def test_a_wrong_time_is_exit_code_2_and_nothing_is_written(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "report.html"
    code, _, err = run(
        monkeypatch, capsys, "report.py", str(ROOT / "compose/examples/cpu.yaml"), "--output", str(output), *arguments
    )
    assert code == 2
    assert said in err
    assert not output.exists()


def test_a_prometheus_that_does_not_answer_is_exit_code_1_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(
        monkeypatch, capsys, "report.py", str(ROOT / "compose/examples/cpu.yaml"),
        "--output", str(tmp_path / "report.html"), "--prometheus", "http://127.0.0.1:9",
    )  # fmt: skip
    assert code == 1
    assert "Prometheus at http://127.0.0.1:9 does not answer" in err
    assert not list(tmp_path.iterdir())
