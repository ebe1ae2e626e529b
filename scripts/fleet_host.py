#!/usr/bin/env python3
"""One step of a fleet's deploy on this host: prepare it, change an engine, or retire what has no place.

The playbooks of a fleet call this, and see to it that the engine is out of the pools of every gateway. tell says what
a rollback to this release would change here; forget removes the releases that the fleet does not keep any more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, fleet_host, fleet_told, inputs
from stack.deploy import retention
from stack.deploy.place import place_here
from stack.errors import InputError
from stack.locks import add_wait_argument


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/fleet_host.py stack.yaml replace engine-toy-0 --hosts hosts.yaml --host gpu-a"
        " --shipped /var/lib/vllm-onprem/stack/stacks/vllm-onprem/shipped",
    )
    inputs.add_arguments(parser)
    parser.add_argument("action", choices=[*fleet_host.ACTIONS, "tell", "forget"], help="what to do")
    parser.add_argument("engine", nargs="?", help="for start, replace, stop and back")
    parser.add_argument("--shipped", type=Path, required=True, metavar="DIR", help="the tree that the controller sent")
    parser.add_argument(
        "--again", action="store_true", help="tell, prepare: by what is kept of this release; nothing was sent for it"
    )
    parser.add_argument("--stay", default="", metavar="IDS", help="forget: releases that stay, with commas between")
    add_wait_argument(parser)
    arguments = parser.parse_args()
    if (arguments.engine is None) == (arguments.action in ("start", "replace", "stop", "back")):
        raise InputError("fleet_host.py", "start, replace, stop and back are of one engine, the others of none")
    if arguments.hosts is None or arguments.host is None:
        raise InputError("fleet_host.py", "--hosts and --host are needed")
    if arguments.action == "tell":
        console.print_json(fleet_told.tell(arguments))
    elif arguments.action == "forget":
        place = place_here(inputs.place(arguments).state)
        console.print_json({"host": arguments.host, "done": retention.keep_only(place, arguments.stay.split(","))})
    else:
        console.print_json({"host": arguments.host, "done": fleet_host.act(arguments)})
    return 0


if __name__ == "__main__":
    console.run(main)
