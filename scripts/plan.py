#!/usr/bin/env python3
"""Print what a stack file means: replicas, GPUs, flags, ports, images. Touches nothing."""

from __future__ import annotations

import argparse

from stack import console, inputs, summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/plan.py stack.yaml --json")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the plans as JSON")
    arguments = parser.parse_args()
    plans = [plan.as_dict() for plan in inputs.gather(arguments).plans()]
    if arguments.json:
        console.print_json({"plans": plans})
    else:
        print("\n\n".join(summary.plan_table(plan) for plan in plans))
    return 0


if __name__ == "__main__":
    console.run(main)
