#!/usr/bin/env python3
"""Take a GPU out of use: its replicas are drained and stopped, the others serve on; kept over restarts and `make up`.

With --undo its replicas are started again, and asked for a completion before they get requests.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict

from stack import console, inputs
from stack.day2.cordon import Outcome, cordon, uncordon
from stack.docker_host import connect
from stack.locks import only_one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/cordon.py stack.yaml GPU-4f0c...")
    inputs.add_arguments(parser)
    parser.add_argument("gpu", help="UUID, as `make plan` and `nvidia-smi -L` print it")
    parser.add_argument("--undo", action="store_true", help="use it again")
    parser.add_argument(
        "--timeout", type=float, default=120, metavar="S",
        help="seconds to wait for requests in flight (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    place, client = inputs.place(arguments), connect()
    with only_one(place.state):
        if arguments.undo:
            done = uncordon(place, arguments.gpu, inputs.ROOT, client)
        else:
            gap = bool(os.environ.get("ALLOW_DOWNTIME"))
            done = cordon(place, arguments.gpu, inputs.ROOT, client, gap=gap, timeout=arguments.timeout)
    if arguments.json:
        console.print_json({"gpu": arguments.gpu, "cordoned": not arguments.undo, **asdict(done)})
    else:
        print(told(arguments.gpu, done, undone=arguments.undo))
    return 0


def told(gpu: str, done: Outcome, *, undone: bool) -> str:
    """The outcome for a person."""
    if undone:
        return f"{gpu} is used again; started: {', '.join(done.started) or 'nothing, no replica is on it'}."
    cut = f" {done.left:g} requests were not finished in time." if done.left else ""
    return f"{gpu} is cordoned; stopped: {', '.join(done.stopped) or 'nothing, no replica ran on it'}.{cut}"


if __name__ == "__main__":
    console.run(main)
