#!/usr/bin/env python3
"""Make every container image of a stack present on this machine, and print which image each role runs."""

from __future__ import annotations

import argparse

from stack import console, image_record, image_store, inputs
from stack.docker_host import connect
from stack.locks import taking_turns


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/images.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print role -> image as JSON")
    arguments = parser.parse_args()
    found = inputs.gather(arguments)
    with taking_turns(found.shared):
        made = image_store.ensure(found.images, found.source, inputs.ROOT, console.say, connect())
        image_record.add(found.shared, made)
    if made:
        console.say(f"{len(made)} images {'built' if found.source == 'build' else 'pulled'}")
    if arguments.json:
        console.print_json(found.images)
    else:
        print("\n".join(f"{role:14} {reference}" for role, reference in sorted(found.images.items())))
    return 0


if __name__ == "__main__":
    console.run(main)
