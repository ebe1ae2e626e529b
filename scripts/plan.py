#!/usr/bin/env python3
"""Print what a stack file means: replicas, GPUs, flags, ports, images, memory and the reasons. Touches nothing."""

from __future__ import annotations

import argparse

from stack import console, inputs, summary
from stack.sizing.explain import sized_text
from stack.sizing.report import sized_dict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/plan.py stack.yaml --json")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the plans as JSON")
    arguments = parser.parse_args()
    made = inputs.gather(arguments).plans_with_reasons()
    if arguments.json:
        sizing = {plan.host: [sized_dict(sized) for sized in found] for plan, found in made}
        console.print_json({"plans": [plan.as_dict() for plan, _ in made], "sizing": sizing})
        return 0
    for number, (plan, found) in enumerate(made):
        document = plan.as_dict()
        print("\n\n" * bool(number) + summary.plan_table(document))
        for sized in found:
            name = sized.model.served_model_name
            engines = [engine for engine in document["engines"] if engine["served_model_name"] == name]
            print(f"\n{sized_text(sized, engines)}")
    return 0


if __name__ == "__main__":
    console.run(main)
