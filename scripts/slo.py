#!/usr/bin/env python3
"""What is left of each objective's error budget over the last 30 days, and how fast it burns."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from stack import adjust, console, inputs
from stack.observe.error_budget import Budget, budgets, prometheus


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/slo.py stack.yaml --json | jq '.[].remaining'"
    )
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON; null where there was no request")
    arguments = parser.parse_args()
    plan = adjust.applied(inputs.place(arguments).live)
    port = next(entry.port for entry in plan.published if entry.service == "prometheus")
    found = list(budgets(plan.watch, prometheus(port)))
    if arguments.json:
        console.print_json([asdict(budget) for budget in found])
    else:
        head = ["objective", "goal", "requests", "bad", "good", "budget left", "burns 1h", "burns 6h"]
        print(console.table(head, [_row(budget) for budget in found]))
    return 0


def _row(budget: Budget) -> list[str]:
    cells = {
        "{:.0f}": (budget.requests, budget.bad),
        "{:.4f} %": (budget.good_percent,),
        "{:.1%}": (budget.remaining,),
        "{:.2f}x": (budget.burn_1h, budget.burn_6h),
    }
    shown = ["no data" if value is None else form.format(value) for form, values in cells.items() for value in values]
    return [budget.objective, f"{budget.percent:g} %", *shown]


if __name__ == "__main__":
    console.run(main)
