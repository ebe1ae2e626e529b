#!/usr/bin/env python3
"""Take a replica out of the pools of this gateway host while a deploy replaces it, and put it back.

Not for people: `make drain` is, and is kept until `make undrain`. The playbook deploy_fleet.yml calls this on each
gateway host. settle puts back what a deploy that was cut off has left out.
"""

from __future__ import annotations

import argparse

from stack import console, inputs, pools
from stack.docker_host import connect
from stack.errors import InputError
from stack.locks import only_one

WAIT_SECONDS = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/pool.py stack.yaml out engine-toy-0")
    inputs.add_arguments(parser)
    parser.add_argument("action", choices=["out", "back", "settle"], help="what to do")
    parser.add_argument("replica", nargs="?", help="as `make status` names it on its host")
    parser.add_argument("--least", type=int, default=1, metavar="N", help="out: of its pool, that serve meanwhile")
    arguments = parser.parse_args()
    place = inputs.place(arguments)
    if arguments.action != "settle" and arguments.replica is None:
        raise InputError("pool.py", f"{arguments.action} needs the name of a replica")
    client = connect()
    with only_one(place.state, WAIT_SECONDS):
        if arguments.action == "settle":
            console.print_json({"settled": pools.settle(place, client)})
            return 0
        if arguments.action == "out":
            known = pools.take_out(place, arguments.replica, client, arguments.least)
        else:
            known = pools.put_back(place, arguments.replica, client)
    console.print_json({"replica": arguments.replica, "known": known})
    return 0


if __name__ == "__main__":
    console.run(main)
