#!/usr/bin/env python3
"""Take replicas out of the pools of this host while a deploy replaces them, and put them back.

Not for people: `make drain` is, and is kept until `make undrain`. The playbooks of a fleet call this on each gateway
host, and where Alertmanager is, which tells nobody meanwhile that they are away.
"""

from __future__ import annotations

import argparse

from stack import console, inputs, pools
from stack.docker_host import connect
from stack.locks import only_one

WAIT_SECONDS = 120


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/pool.py stack.yaml out engine-toy-0=1 --seconds 600"
    )
    inputs.add_arguments(parser)
    parser.add_argument("action", choices=["out", "back"], help="what to do")
    parser.add_argument(
        "replicas", nargs="*", type=_replica, metavar="REPLICA[=N]", help="as `make status` names it on its host, and"
        " how many others of its pool shall serve meanwhile (1); back without any: what a deploy cut off has left out",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=3600, metavar="S", help="out: at most (default: %(default)g)")
    arguments = parser.parse_intermixed_args()
    place = inputs.place(arguments)
    client = connect()
    with only_one(place.state, WAIT_SECONDS):
        if arguments.action == "out":
            console.print_json({"out": pools.take_out(place, dict(arguments.replicas), client, arguments.seconds)})
        else:
            back, out = pools.put_back(place, [name for name, _ in arguments.replicas], client)
            console.print_json({"back": back, "out": out})
    return 0


def _replica(told: str) -> tuple[str, int]:
    name, _, least = told.partition("=")
    return name, int(least or 1)


if __name__ == "__main__":
    console.run(main)
