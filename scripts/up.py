#!/usr/bin/env python3
"""Bring a stack up on this box and prove it with real completions. Run again, it changes nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, inputs, lifecycle, summary
from stack.locks import add_wait_argument


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/up.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument(
        "--shipped", type=Path, metavar="DIR", help="a tree that was rendered elsewhere: nothing else is brought up"
    )
    add_wait_argument(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    arguments = parser.parse_args()
    plan, done = lifecycle.up(arguments)
    if arguments.json:
        console.print_json({"host": plan.host, "done": done, "url": lifecycle.gateway_url(plan.as_dict())})
        return 0
    print("\n".join(done) if done else "Nothing changed, nothing was restarted.")
    print(summary.how_to_use(plan.as_dict()))
    return 0


if __name__ == "__main__":
    console.run(main)
