#!/usr/bin/env python3
"""Start what is applied and does not run, and nothing else: what a host does when it boots. Harmless when all runs."""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.adjust import applied_plan
from stack.docker_host import compose, condition, connect, containers
from stack.locks import only_one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/start.py stack.yaml")
    inputs.add_arguments(parser)
    arguments = parser.parse_args()
    place, client = inputs.place(arguments), connect()
    with only_one(place.state):
        plan = applied_plan(place.live)
        # --no-recreate: a change is for `make up`, which lets requests finish first
        compose(place.live, "up", "--detach", "--no-build", "--pull", "never", "--no-recreate")
    for name, part in sorted(containers(client, plan["project"]).items()):
        print(f"{name}: {condition(part)}")
    return 0


if __name__ == "__main__":
    console.run(main)
