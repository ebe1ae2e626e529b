#!/usr/bin/env python3
"""The releases that this host keeps: which one runs, when each was applied, by whom, and from which commit."""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.deploy import records
from stack.deploy.history import release_table
from stack.deploy.member import membership
from stack.deploy.place import place_here


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: /opt/vllm-onprem/current/.venv/bin/python /opt/vllm-onprem/current/scripts/releases.py"
        " /opt/vllm-onprem/current/stack.yaml",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    here = inputs.place(arguments)
    place = place_here(here.state)
    running, cut_off = place.running(), place.cut_off()
    found = [records.summary(record, running) for record in records.load_all(place.releases)]
    if arguments.json:
        told = {"releases": found, "running": running, "cut_off": cut_off, "state": str(here.state)}
        console.print_json({**told, "fleet": membership(inputs.ROOT, here.live)})
        return 0
    print("\n".join(release_table(found, running)))
    if cut_off:
        print(f"Release {cut_off} is being applied, or that was cut off: deploy again, or roll back to {running}.")
    return 0


if __name__ == "__main__":
    console.run(main)
