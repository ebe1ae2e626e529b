#!/usr/bin/env python3
"""Remove everything of one stack from this box: containers, volumes, keys, certificates, caches, rendered files.

Asks for the stack's name on a terminal first. Models, images and other stacks are kept, and so are backups.
"""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.config.folders import absolute
from stack.config.load import load_config
from stack.day2.clean import belongings, remove_all
from stack.day2.confirm import confirm
from stack.docker_host import connect
from stack.locks import only_one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/clean.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print what was removed as JSON")
    arguments = parser.parse_args()
    config, place = load_config(arguments.stack, str(arguments.stack)), inputs.place(arguments)
    client = connect()
    mine = belongings(place, absolute(inputs.ROOT, config.paths.build), client)
    if not mine.anything:
        print("Nothing of this stack is here.")
        return 0
    console.say(mine.told())
    confirm(place.project, "All of that is removed for good: clients' keys and metrics, too.", yes=arguments.yes)
    with only_one(place.state):
        remove_all(place, mine, client)
    if arguments.json:
        console.print_json(mine.as_dict())
    else:
        shared = absolute(inputs.ROOT, config.paths.state)
        print(f"Removed. Kept: models, backups and other stacks in {shared}, images (`make gc`), {arguments.stack}.")
    return 0


if __name__ == "__main__":
    console.run(main)
