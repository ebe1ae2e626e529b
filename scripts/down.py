#!/usr/bin/env python3
"""Stop a stack on this box. Every volume, model, secret and certificate is kept; `make up` brings it back."""

from __future__ import annotations

import argparse

from stack import apply, console, inputs
from stack.docker_host import compose, connect, containers
from stack.lifecycle import applied_plan


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/down.py stack.yaml")
    inputs.add_arguments(parser)
    arguments = parser.parse_args()
    found = inputs.gather(arguments)
    client = connect()
    with apply.only_one(found.state):
        plan = applied_plan(found.live)
        if not containers(client, plan["project"]):
            print("Nothing was running.")
            return 0
        with console.step("stopping: requests in flight are finished first"):
            compose(found.live, "down", "--remove-orphans")
    print("Stopped. Volumes, models and secrets are kept.")
    return 0


if __name__ == "__main__":
    console.run(main)
