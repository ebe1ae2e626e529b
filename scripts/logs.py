#!/usr/bin/env python3
"""Logs of a stack on this box, the newest lines of every part or of one."""

from __future__ import annotations

import argparse

from stack import adjust, console, inputs
from stack.docker_host import compose


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/logs.py stack.yaml nginx --follow")
    inputs.add_arguments(parser)
    parser.add_argument("service", nargs="*", help="parts, as `make status` names them (default: all)")
    parser.add_argument("--follow", action="store_true", help="go on printing what is logged")
    parser.add_argument("--tail", type=int, default=50, metavar="N", help="lines of each part (default: %(default)s)")
    arguments = parser.parse_args()
    place = inputs.place(arguments)
    follow = ["--follow"] if arguments.follow else []
    adjust.applied_plan(place.live)
    compose(place.live, "logs", f"--tail={arguments.tail}", *follow, *arguments.service, capture=False)
    return 0


if __name__ == "__main__":
    console.run(main)
