"""The committed dashboards: as generated, valid, by the linter's rules, and about metrics that exist."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import rules
from dashboards.exceptions import NOT_OF_A_TARGET
from dashboards.expositions import known
from dashboards.reading import load, panels, selectors, targets, variable_query, variables
from stacks import ROOT

DASHBOARDS = load()
EVERY = [pytest.param(dashboard, id=uid) for uid, dashboard in DASHBOARDS.items()]
METRICS = known()
# labels that scripts/stack/plan/watching.py and Prometheus put on every target's series
OF_TARGETS = {"job", "instance", "host", "model", "replica"}


def test_generating_again_gives_the_same_bytes() -> None:
    done = subprocess.run(
        [sys.executable, "grafana/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_sees_a_dashboard_edited_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "grafana"))
    generate = importlib.import_module("generate")
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    for name in DASHBOARDS:
        (tmp_path / f"{name}.json").write_text((ROOT / f"grafana/dashboards/{name}.json").read_text())
    assert generate.main() == 0
    edited = tmp_path / "vllm-fleet.json"
    edited.write_text(edited.read_text().replace('"30s"', '"5s"'))
    (tmp_path / "stray.json").write_text("{}")
    assert (generate.main(), capsys.readouterr().out.split()) == (1, ["stray.json", "vllm-fleet.json"])


def test_the_six_dashboards_are_there_and_the_file_name_is_the_uid() -> None:
    assert set(DASHBOARDS) == {f"vllm-{name}" for name in ("fleet", "serving", "gateway", "gpu", "host", "slo")}
    assert all(dashboard["uid"] == name and len(name) <= 40 for name, dashboard in DASHBOARDS.items())
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_the_variables_that_an_sre_chooses_by_are_there() -> None:
    names = {uid: [v["name"] for v in dashboard["templating"]["list"]] for uid, dashboard in DASHBOARDS.items()}
    assert all(found[:2] == ["datasource", "host"] for found in names.values())
    assert {"model", "replica"} <= set(names["vllm-serving"])
    assert {"pool", "replica"} <= set(names["vllm-gateway"])


@pytest.mark.parametrize("dashboard", EVERY)
def test_grafanas_own_types_read_it_and_lose_nothing(dashboard: dict[str, Any]) -> None:
    register_default_plugins()
    read = Dashboard.from_json(dashboard)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == dashboard


@pytest.mark.parametrize("dashboard", EVERY)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_linters_rules(rule: Callable[[Mapping[str, Any]], Iterator[str]], dashboard: dict[str, Any]) -> None:
    excepted = {title for uid, title in NOT_OF_A_TARGET if uid == dashboard["uid"]}
    of_targets = rule is rules.target_job_instance
    wrong = [what for what in rule(dashboard) if not (of_targets and what.partition(": ")[0] in excepted)]
    assert wrong == []


def test_every_exception_of_the_linter_is_needed() -> None:
    wrong = {
        (uid, what.partition(": ")[0])
        for uid, dashboard in DASHBOARDS.items()
        for what in rules.target_job_instance(dashboard)
    }
    assert wrong == set(NOT_OF_A_TARGET)


@pytest.mark.parametrize("dashboard", EVERY)
def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for cell in ((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]


@pytest.mark.parametrize("dashboard", EVERY)
def test_each_panel_of_a_row_has_a_title_of_its_own(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("dashboard", EVERY)
def test_every_metric_and_label_is_exposed_by_a_pinned_part(dashboard: dict[str, Any]) -> None:
    asked = [(target.name[1], selector) for target in targets(dashboard) for selector in selectors(target.tree())]
    wrong = []
    for title, selector in asked:
        if selector.name not in METRICS:
            wrong.append(f"{title}: {selector.name} is in no recorded exposition")
            continue
        labels = {matcher.name for matcher in selector.matchers.matchers}
        unknown = labels - METRICS[selector.name] - OF_TARGETS
        wrong += [f"{title}: {selector.name} has no label {label}" for label in sorted(unknown)]
    assert wrong == []


@pytest.mark.parametrize("dashboard", EVERY)
def test_every_variable_takes_its_values_from_a_series_that_exists(dashboard: dict[str, Any]) -> None:
    for variable in variables(dashboard):
        series, label = variable_query(variable)
        name = series.partition("{")[0]
        assert name in METRICS, variable["name"]
        assert label in METRICS[name] | OF_TARGETS, variable["name"]


@pytest.mark.parametrize("dashboard", EVERY)
def test_no_query_makes_up_data(dashboard: dict[str, Any]) -> None:
    for target in targets(dashboard):
        assert not re.search(r"\bvector\s*\(|\babsent", target.expr), target.name


@pytest.mark.parametrize("dashboard", EVERY)
def test_a_runbook_that_a_description_names_is_there(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        for path in re.findall(r"docs/runbooks/[\w./-]+\.md", panel["description"]):
            assert (ROOT / path).is_file(), f"{panel['title']}: {path}"
