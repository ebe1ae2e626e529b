#!/usr/bin/env python3
"""Silence the alerts that the absence of one engine causes, for so long, or end that silence.

Run where Alertmanager is; the playbook deploy_fleet.yml calls this around each engine that it replaces on another host.
"""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.adjust import applied_plan
from stack.observe import silences


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/silence.py stack.yaml engine-toy-0 --seconds 600"
    )
    inputs.add_arguments(parser)
    parser.add_argument("engine", help="as `make status` names it on its host")
    parser.add_argument("--seconds", type=float, default=3600, metavar="S", help="how long (default: %(default)s)")
    parser.add_argument("--end", action="store_true", help="end it")
    arguments = parser.parse_args()
    plan = applied_plan(inputs.place(arguments).live)
    if arguments.end:
        silences.end(plan, arguments.engine)
    else:
        silences.silence(plan, arguments.engine, arguments.seconds, "replaced by a deploy")
    return 0


if __name__ == "__main__":
    console.run(main)
