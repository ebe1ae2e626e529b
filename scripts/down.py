#!/usr/bin/env python3
"""Stop a stack on this box. Every volume, model, secret and certificate is kept; `make up` brings it back."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace

import docker

from stack import adjust, console, inputs
from stack.deploy.running import ENGINE
from stack.docker_host import connect, containers
from stack.errors import InputError
from stack.inputs import Place
from stack.locks import only_one
from stack.put_back import stop
from stack.roll import finish_requests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/down.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument(
        "--drain", type=float, metavar="S",
        help="take every replica out of its pool first, and wait at most so many seconds for requests in flight",
    )  # fmt: skip
    parser.add_argument(
        "--finish", type=float, metavar="S",
        help="only wait, at most so many seconds: for a host of a fleet whose gateways send it nothing any more",
    )  # fmt: skip
    arguments = parser.parse_args()
    place = inputs.place(arguments)
    client = connect()
    with only_one(place.state):
        running = containers(client, place.project)
        if not running:
            print("Nothing was running.")
            return 0
        if arguments.drain is not None:
            drain(place, arguments.drain, client)
        if arguments.finish is not None:
            finish(place.project, [name for name in running if name.startswith(ENGINE)], arguments.finish, client)
        with console.step("stopping: requests in flight are finished first"):
            stop(place, client)
    print("Stopped. Volumes, models and secrets are kept.")
    return 0


def drain(place: Place, limit: float, client: docker.DockerClient) -> None:
    """No replica gets a new request: the gateway says 503. Gone with the next `make up`, as nobody decided it."""
    plan = adjust.applied(place.live)
    if plan.fleet:
        what = "it is of a fleet, and its gateways are not asked here: `make drain` on them, and --finish here"
        raise InputError("--drain", what)
    names = frozenset(engine.name for engine in plan.engines)
    adjust.adjust(place.project, place.state, inputs.ROOT, client, lambda state: replace(state, drained=names))
    finish(place.project, names, limit, client)


def finish(project: str, names: Iterable[str], limit: float, client: docker.DockerClient) -> None:
    """Wait for the requests in flight of these engines, and warn of those that are left."""
    ends = time.monotonic() + limit
    for name in sorted(names):
        finish_requests(project, name, max(0.0, ends - time.monotonic()), client)


if __name__ == "__main__":
    console.run(main)
