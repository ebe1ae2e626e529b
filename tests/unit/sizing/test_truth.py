"""Published logs of real engines: what the plan would have said before they started."""

from __future__ import annotations

from typing import Any

import pytest

from stack.sizing.catalogue import sources
from stacks import ROOT
from unit.sizing.fixtures import GIB, NAMES, known, shape
from unit.sizing.truth import ROWS, outcome, profile, truth_table

GIVEN, END_TO_END = 0.03, 0.10


def rows(goal: str) -> list[Any]:
    """Rows of a goal, each under its own name."""
    return [pytest.param(row, id=f"row {row['row']}") for row in ROWS if row.get(goal)]


@pytest.mark.parametrize("row", rows("memory"))
def test_tokens_from_the_logs_gib_are_within_3_percent(row: dict[str, Any]) -> None:
    found = outcome(row)
    assert found.memory == pytest.approx(found.published, rel=GIVEN)


@pytest.mark.parametrize("row", rows("budget"))
def test_the_budget_from_the_logs_weights_and_activations_is_within_3_percent(row: dict[str, Any]) -> None:
    found = outcome(row)
    assert found.budget == pytest.approx(found.published, rel=GIVEN)


@pytest.mark.parametrize("row", rows("end"))
def test_end_to_end_it_is_within_10_percent(row: dict[str, Any]) -> None:
    found = outcome(row)
    assert found.end == pytest.approx(found.published, rel=END_TO_END)


def test_every_row_has_a_goal_or_a_reason() -> None:
    for row in ROWS:
        found = outcome(row)
        missed = [
            value for value in (found.memory, found.budget, found.end) if abs(found.miss(value) or 0) > END_TO_END
        ]
        assert row.get("memory") or row.get("budget") or row.get("end") or row.get("none")
        assert row.get("why") or not missed, row["row"]


def test_rows_are_held_out_of_the_fit() -> None:
    assert len([row for row in ROWS if row.get("held_out")]) >= 2
    assert not [row for row in ROWS if row.get("held_out") and row.get("fitted")]


def test_no_constant_is_of_a_model_or_a_row() -> None:
    """They have sources, and no model of the fixtures is a key anywhere in them."""
    text = (ROOT / "scripts/stack/sizing/constants.yaml").read_text() + (
        ROOT / "scripts/stack/sizing/gpus.yaml"
    ).read_text()
    keys = {line.split(":")[0].strip(" -{") for line in text.splitlines() if not line.lstrip().startswith("#")}
    assert not keys & {*NAMES, *(row["row"] for row in ROWS)}
    assert all(sources().values())


@pytest.mark.parametrize(
    ("name", "gib"),
    [("llama-3-8b", 14.96), ("qwen3-32b", 61.03), ("qwen3-8b", 15.27), ("llama-3.1-8b", 14.99)],
)
def test_estimated_weights_are_those_that_logs_say(name: str, gib: float) -> None:
    assert known(name).weights.total / GIB == pytest.approx(gib, rel=0.005)


def test_an_awq_model_is_as_large_as_its_files() -> None:
    """5.73 GB: what the hub shows for AWQ versions of Llama 3 8B with groups of 128."""
    assert known("llama-3-8b-awq").weights.total / 1e9 == pytest.approx(5.73, rel=0.01)


def test_activations_of_the_profile_run_are_those_of_the_log() -> None:
    """Row 14's engine printed 1.26 GiB; nothing was fitted to it."""
    row = next(row for row in ROWS if row["row"] == "14")
    assert profile(row) == pytest.approx(1.26, rel=0.05)


def test_the_table_in_the_docs_is_this_one() -> None:
    page = (ROOT / "docs/plan.md").read_text()
    assert truth_table() in page, "docs/plan.md: put the truth table in anew:\n" + truth_table()


def test_the_shape_of_the_articles_model_is_the_plain_ones() -> None:
    assert shape("llama-3-8b-awq").layers == shape("llama-3-8b").layers
