#!/usr/bin/env python3
"""Stop a stack on this box. Every volume, model, secret and certificate is kept; `make up` brings it back."""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.docker_host import connect, containers
from stack.locks import only_one
from stack.put_back import stop


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/down.py stack.yaml")
    inputs.add_arguments(parser)
    arguments = parser.parse_args()
    place = inputs.place(arguments)
    client = connect()
    with only_one(place.state):
        running = containers(client, place.project)
        if not running:
            print("Nothing was running.")
            return 0
        with console.step("stopping: requests in flight are finished first"):
            stop(place, client)
    print("Stopped. Volumes, models and secrets are kept.")
    return 0


if __name__ == "__main__":
    console.run(main)
