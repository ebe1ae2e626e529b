#!/usr/bin/env python3
"""New secrets for those that the stack keeps to itself. No request fails; run again, it finishes what was cut off.

Clients' keys are theirs to change: scripts/keys.py add, then revoke.
"""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.docker_host import connect
from stack.locks import only_one
from stack.secrets.rotate import rotate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/secrets_rotate.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    place, client = inputs.place(arguments), connect()
    with only_one(place.state):
        done = rotate(place, str(arguments.stack), client)
    if arguments.json:
        console.print_json({"done": done})
    else:
        print(done)
    return 0


if __name__ == "__main__":
    console.run(main)
