"""The published logs of truth.yaml beside what the formulas say of them; docs/plan.md shows the same table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.sizing.catalogue import constant
from stack.sizing.memory import Era, Memory, activations, memory_of, now
from stack.yaml_input import parsed
from unit.sizing.fixtures import GIB, card, known, setting

ROWS: list[dict[str, Any]] = parsed((Path(__file__).parent / "truth.yaml").read_text())
# What a row is tested for, in the words of the table.
GOALS = {
    "memory": "3 % from GiB", "budget": "3 % from budget", "end": "10 % end to end", "none": "none",
    "fitted": "fitted to it", "held_out": "held out of fitting",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One row: what the log says, what is predicted from the cache's GiB, from the budget, and from nothing.

    unit: tokens or GiB. None where the log does not give what that prediction starts from.
    """

    row: str
    published: float
    unit: str
    memory: float | None
    budget: float | None
    end: float | None

    def miss(self, predicted: float | None) -> float | None:
        """By how much a prediction is off, as a share."""
        return None if predicted is None else predicted / self.published - 1


def era(name: str) -> Era:
    """What the engines of a time did in their profile run."""
    if name == "0.32":
        return now()
    part = "first_runner" if name == "0.19" else "older"
    return Era(constant(part, "sampler_bytes_per_logit"), constant(part, "non_torch"), counts_graphs=False)


def outcome(row: Mapping[str, Any]) -> Outcome:
    """A row worked out."""
    model, flags = known(row["model"]), setting(row["size"], row["length"], row["seqs"], row["batched"], row["util"])
    memory = memory_of(model.shape, model.weights, card(row["card"]), flags, era(row["era"]))
    given, in_tokens = row.get("given", {}), "tokens" in row
    spent = None
    if {"weights", "activations"} <= set(given):
        other = given.get("non_torch", memory.non_torch / GIB) + (memory.nccl + memory.graphs) / GIB
        spent = (given["weights"] + given["activations"] + other) * GIB
    return Outcome(
        row=row["row"],
        published=row["tokens"] if in_tokens else row["kv_gib"],
        unit="tokens" if in_tokens else "GiB",
        memory=_tokens(memory, given["kv_gib"] * GIB) if in_tokens and "kv_gib" in given else None,
        budget=None if spent is None else _value(memory, memory.requested - spent, in_tokens),
        end=None if row.get("other_model") else _value(memory, memory.kv_cache, in_tokens),
    )


def _value(memory: Memory, kv_cache: float, in_tokens: bool) -> float:
    return _tokens(memory, kv_cache) if in_tokens else kv_cache / GIB


def _tokens(memory: Memory, kv_cache: float) -> float:
    flags = memory.setting
    return memory.layout.tokens(int(kv_cache), flags.max_model_len, flags.max_num_batched_tokens)


def truth_table() -> str:
    """Every row as Markdown: predicted against published, with the goal it has and why it misses."""
    head = ("row", "model", "card, utilization", "published", "from the cache's GiB", "from the budget", "end to end",
            "goal", "why")  # fmt: skip
    return "\n".join(_line(cells) for cells in (head, ["---"] * len(head), *(_cells(row) for row in ROWS)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Mapping[str, Any]) -> list[str]:
    found = outcome(row)
    goals = [name for goal, name in GOALS.items() if row.get(goal)]
    return [
        found.row,
        f"{row['model']} TP{row['size']}",
        f"{row['card']}, {row['util']}",
        _shown(found.published, found.unit),
        *(_cell(found, value) for value in (found.memory, found.budget, found.end)),
        "; ".join(goals),
        f"{row.get('why', '')} ({row['source']})".strip(),
    ]


def _shown(value: float, unit: str) -> str:
    return f"{value:.0f}" if unit == "tokens" else f"{value:.2f} GiB"


def _cell(found: Outcome, value: float | None) -> str:
    miss = found.miss(value)
    return "" if value is None or miss is None else f"{_shown(value, found.unit)} ({miss:+.1%})"


def profile(row: Mapping[str, Any]) -> float:
    """Activations of a row's profile run, in GiB."""
    flags = setting(row["size"], row["length"], row["seqs"], row["batched"], row["util"])
    return activations(known(row["model"]).shape, flags, era(row["era"])) / GIB
