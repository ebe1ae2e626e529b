"""Published logs of real engines: what the plan would have said before they started."""

from __future__ import annotations

from typing import Any

import pytest

from stack.sizing.candidates import candidates
from stack.sizing.catalogue import sources
from stack.sizing.roofline import decode
from stacks import ROOT
from unit.sizing.fixtures import GIB, NAMES, card, known, shape, wish
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
    [
        ("llama-3-8b", 14.96),
        ("qwen3-32b", 61.03),
        ("qwen3-8b", 15.27),
        ("llama-3.1-8b", 14.99),
        ("llama-3-8b-awq", 5.344),
    ],
)
def test_estimated_weights_are_those_that_logs_say(name: str, gib: float) -> None:
    """Rows 3, 6a, 13 and 5; "Loading model weights took 5.3440 GB" is a public log of Llama 3 8B in AWQ."""
    assert known(name).weights.total / GIB == pytest.approx(gib, rel=0.005)


def test_activations_of_the_profile_run_are_those_of_the_log() -> None:
    """Row 14's engine printed 1.26 GiB; nothing was fitted to it."""
    row = next(row for row in ROWS if row["row"] == "14")
    assert profile(row) == pytest.approx(1.26, rel=0.05)


def test_the_table_in_the_docs_is_this_one() -> None:
    page = (ROOT / "docs/plan.md").read_text()
    assert truth_table() in page, "docs/plan.md: put the truth table in anew:\n" + truth_table()


def test_the_shape_of_the_articles_model_is_the_plain_ones() -> None:
    assert shape("llama-3-8b-awq").layers == shape("llama-3-8b").layers


# QwQ-32B on A100-80 SXM, tokens a second of one stream and of 16: vllm#16300. Its shape is Qwen3-32B's: 64 layers of
# 5120, 32.8 B parameters.
MEASURED = {2: (36, 528), 4: (50, 660), 8: (63, 760)}


@pytest.mark.parametrize("size", sorted(MEASURED))
def test_speeds_are_those_that_were_measured(size: int) -> None:
    """The all-reduce's time is fitted to one stream; 16 streams are not fitted to, and an upper bound."""
    model = known("qwen3-32b")
    one, many = (decode(model.shape, model.weights, card("a100-80-sxm"), size, batch, 1024) for batch in (1, 16))
    assert one.total == pytest.approx(MEASURED[size][0], rel=0.10)
    assert MEASURED[size][1] * 0.95 <= many.total <= MEASURED[size][1] * 1.35


def test_one_stream_on_one_card_is_near_what_was_measured() -> None:
    """75 tokens/s of an 8B model on an A100-40 with vLLM 0.23: johnmusgrave.com/p/vllm-throughput-latency-sweep-on."""
    model = known("llama-3.1-8b")
    assert decode(model.shape, model.weights, card("a100-40-sxm"), 1, 1, 1024).total == pytest.approx(75, rel=0.10)


def test_more_gpus_for_one_engine_gain_less_than_they_cost() -> None:
    """AccelMark, Llama-3-8B on 8 x A100-40: 3,001 tokens/s on one, 6,634 on eight (TP8): 2.2 times, not 8."""
    model, kind = known("llama-3-8b"), card("a100-40-sxm")
    one, eight = (decode(model.shape, model.weights, kind, size, 64, 1024).total for size in (1, 8))
    assert 1.5 < eight / one < 3.5


def test_the_articles_figures_in_the_docs_are_the_plans() -> None:
    model, flags = known("llama-3-8b-awq"), wish(max_model_len=8192, gpu_memory_utilization=0.9)
    by_size = {
        way.size: way for way in candidates(model.shape, model.weights, card("a100-80-sxm"), 8, flags)
    }  # fmt: skip
    page = (ROOT / "docs/plan.md").read_text()
    one, eight = by_size[8], by_size[1]
    assert f"{one.busy:,.0f} tokens/s at 64" in page
    assert f"8 x {eight.speeds[-1].total:,.0f} = {eight.busy:,.0f}" in page
