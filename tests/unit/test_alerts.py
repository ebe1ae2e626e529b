"""Every alert has what a person needs, cases of both kinds, and metrics that exist with the labels it asks for."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

import alert_cases
from stack.observe import files, histograms, slo
from stack.observe.jobs import JOBS
from stack.observe.rule import Alert, duration
from stack.observe.xids import TABLE
from stack.yaml_input import parsed
from stacks import ROOT

ALERTS = alert_cases.alerts()
NAMES = sorted({alert.name for alert in ALERTS})
CASES = list(alert_cases.cases())
EXPOSITIONS = ROOT / "tests/expositions"
# Prometheus' own series, and those that recording rules make.
MADE = {"up", "ALERTS"}
PROMQL = {
    "sum", "by", "rate", "increase", "or", "and", "vector", "max", "min", "abs", "time", "count", "absent", "changes",
    "clamp_min", "label_replace", "min_over_time", "unless", "on",
}  # fmt: skip


@cache
def recorded() -> dict[str, set[str]]:
    """Metric -> names of its labels, over all recorded expositions."""
    found: dict[str, set[str]] = {}
    for path in EXPOSITIONS.glob("*.txt"):
        for line in path.read_text().splitlines():
            match = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line)
            if match and not line.startswith("#"):
                found.setdefault(match[1], set()).update(alert_cases.labels_in(match[2] or ""))
    return found


def metrics_in(expr: str) -> set[str]:
    """Names of metrics in a query."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expr)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(?:by|on)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*", re.sub(r"\[[^\]]*\]", "", bare))
    return {word for word in words if word not in PROMQL}


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_cases_in_which_it_fires_and_in_which_it_is_silent(name: str) -> None:
    kinds = Counter(case.fires is not None for case in CASES if case.alert == name)
    assert kinds[True]
    assert kinds[False] or name == "Watchdog"


def test_every_rule_of_an_objective_and_of_each_severity_has_a_firing_case() -> None:
    fired = {id(alert_cases.rule_of(case)) for case in CASES if case.fires is not None}
    shown = {(alert.name, alert.severity) for alert in ALERTS if id(alert) in fired}
    one_kind = {
        (alert.name, alert.severity) for alert in ALERTS if alert.name not in ("TtftBudgetBurn", "E2eBudgetBurn")
    }
    assert one_kind <= shown


def test_no_case_is_of_an_alert_that_is_gone() -> None:
    assert {case.alert for case in CASES} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_runbook_with_its_three_parts_and_three_commands(name: str) -> None:
    text = (ROOT / f"docs/runbooks/{name}.md").read_text()
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        name, "What it means", "First three commands", "How to end it"
    ]  # fmt: skip
    assert len(text.split("```")[1].strip().splitlines()) == 3
    assert all(len(part.strip()) > 20 for part in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])


def test_no_runbook_is_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} == {*NAMES, "README"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_says_how_much_how_bad_and_where_its_threshold_is_from(alert: Alert) -> None:
    assert alert.severity in ("page", "ticket", "watchdog")
    assert "$value" in alert.summary
    assert len(alert.threshold) > 15
    assert alert.action.endswith(".")
    written = alert.as_dict("https://x.example/runbooks/", 1.0)
    assert written["annotations"]["runbook"] == f"https://x.example/runbooks/{alert.name}.md"


@pytest.mark.parametrize("case", [case for case in CASES if case.fires is not None], ids=lambda case: case.alert)
def test_what_an_alert_says_is_among_the_labels_that_it_fires_with(case: alert_cases.Case) -> None:
    rule = alert_cases.rule_of(case)
    said = set(re.findall(r"\$labels\.(\w+)", rule.summary + rule.action))
    assert said <= set(alert_cases.labels_in(case.fires or ""))


def test_every_metric_of_a_rule_is_in_a_recorded_exposition() -> None:
    groups = [group for groups in files.rule_groups(alert_cases.plan().as_dict()).values() for group in groups]
    rules = [rule for group in groups for rule in group.rules]
    recordings = {rule.name for rule in rules if not isinstance(rule, Alert)}
    used = {metric for rule in rules for metric in metrics_in(rule.expr)}
    assert len(used) > 60
    assert used - recordings - MADE - recorded().keys() == set()


def test_a_metric_that_is_not_there_would_be_found() -> None:
    assert metrics_in('sum by (a) (rate(x:y_z{b="c"}[5m])) / (d_total > 0) or absent(up{job="e"}) * 0') == {
        "x:y_z", "d_total", "up"
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_the_series_of_a_case_have_the_labels_of_the_live_scrape(case: alert_cases.Case) -> None:
    of_target = {
        target.job: {name for name in target.labels if not name.startswith("__")} | {"job", "instance"}
        for target in alert_cases.plan().targets
    }
    for series in case.series:
        metric, labels = series.split("{", 1)
        given = alert_cases.labels_in(labels)
        own = recorded().get(metric, set())
        assert set(given) - of_target[given["job"]] <= own, series
        assert set(given) >= of_target[given["job"]], series


def test_every_xid_is_in_one_row_and_every_row_is_a_rule() -> None:
    codes = [code for row in TABLE for code in row.codes]
    assert len(codes) == len(set(codes))
    rules = [alert for alert in ALERTS if alert.name == "GpuXid"]
    assert [sorted(map(int, rule.labels["codes"].split())) for rule in rules] == [sorted(row.codes) for row in TABLE]
    for rule in rules:
        matched = re.search(r'xid=~"([^"]*)"', rule.expr)
        assert matched
        assert {code for code in codes if re.fullmatch(matched[1], str(code))} == {
            *map(int, rule.labels["codes"].split())
        }


def test_recording_rules_are_named_level_metric_operations() -> None:
    for groups in files.rule_groups(alert_cases.plan().as_dict()).values():
        for group in groups:
            for rule in group.rules:
                if not isinstance(rule, Alert):
                    assert re.fullmatch(r"[a-z0-9_]+:[a-z_]+:[a-z_]+\d+[mhd]", rule.name), rule.name
                    assert not rule.name.startswith("vllm:")


def test_the_edges_that_objectives_may_have_are_those_of_the_recorded_histograms() -> None:
    text = "".join(path.read_text() for path in EXPOSITIONS.glob("vllm-*.txt"))
    for metric, name in histograms.NAMES.items():
        edges = {float(edge) for edge in re.findall(rf'^{name}_bucket{{[^}}]*le="([0-9.]+)"', text, re.MULTILINE)}
        assert edges == set(histograms.VLLM[metric])


@pytest.mark.parametrize(("window", "factor"), zip(slo.WINDOWS, (14.4, 6, 3, 1), strict=True))
def test_the_burn_rates_are_those_of_the_workbook(window: slo.Window, factor: float) -> None:
    assert window.factor == pytest.approx(factor)
    assert window.short * 12 == window.long


def test_every_job_of_a_plan_has_a_way_to_be_scraped_and_no_job_is_left_over() -> None:
    assert {target.job for target in alert_cases.plan().targets} == JOBS.keys()


@pytest.mark.parametrize(("seconds", "text"), [(90, "90s"), (300, "5m"), (3600, "1h"), (5400, "90m"), (259200, "3d")])
def test_durations_are_written_as_prometheus_does(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_waits_shrink_with_patience_and_never_to_nothing() -> None:
    made = parsed(files.rule_files(alert_cases.plan().as_dict(), 0.01)["prometheus/rules/serving.yaml"])
    waits = {rule["alert"]: rule.get("for") for rule in made["groups"][0]["rules"]}
    assert (waits["EngineDown"], waits["ReplicaOutOfPool"], waits["EngineWedged"]) == ("1s", "1s", None)
