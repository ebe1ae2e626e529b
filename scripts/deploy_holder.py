#!/usr/bin/env python3
"""Say who holds a fleet while it is deployed to: the playbook that this runs under. Or whether another holder is dead.

The playbook deploy_fleet.yml calls this, on the controller.
"""

from __future__ import annotations

import argparse

from stack import console
from stack.deploy import holder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/deploy_holder.py --is-dead a/b/c/d/1/2"
    )
    parser.add_argument("--is-dead", metavar="HOLDER", help="say whether this one is a process here that is no more")
    arguments = parser.parse_args()
    if arguments.is_dead is not None:
        console.print_json({"dead": holder.is_dead(arguments.is_dead)})
    else:
        console.print_json({"holder": str(holder.current())})
    return 0


if __name__ == "__main__":
    console.run(main)
