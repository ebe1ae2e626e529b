#!/usr/bin/env python3
"""Take a replica out of its pool, or put it back. Waits for requests in flight; kept over restarts and `make up`."""

from __future__ import annotations

import argparse
import os

import docker

from stack import adjust, console, drains, inputs
from stack.docker_host import condition, connect, containers
from stack.errors import InputError
from stack.locks import only_one
from stack.observe import silences
from stack.plan.types import Plan
from stack.roll import wait_until_idle
from stack.smoke import in_pools


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/drain.py stack.yaml engine-toy-0")
    inputs.add_arguments(parser)
    parser.add_argument("replica", help="as `make status` names it")
    parser.add_argument("--undo", action="store_true", help="put it back into its pool")
    parser.add_argument(
        "--timeout", type=float, default=600, metavar="S",
        help="seconds to wait for requests in flight (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    place, client = inputs.place(arguments), connect()
    name = arguments.replica
    with only_one(place.state):
        plan = adjust.applied(place.live)
        pool = next((pool for pool in plan.pools if name in pool.engines), None)
        if pool is None:
            raise InputError(name, f"no such replica; there are: {', '.join(engine.name for engine in plan.engines)}")
        drained = drains.drained(place.state)
        serving = set(pool.engines) & _serving(plan, client)
        if not (arguments.undo or serving - drained - {name} or os.environ.get("ALLOW_DOWNTIME")):
            what = f"no other replica serves {pool.served_model_name}; with ALLOW_DOWNTIME=1 it is drained anyway"
            raise InputError(name, what)
        drains.save(place.state, (drained - {name}) if arguments.undo else drained | {name})
        adjust.adjust(place.project, place.state, inputs.ROOT, client)
        if arguments.undo:
            silences.end(plan.as_dict(), name)
        else:
            silences.silence(plan.as_dict(), name, silences.DRAIN_SECONDS, "drained")
    server = plan.fleet.servers.get(name) if plan.fleet else None
    where = f"{server.address}:{server.port}" if server else None
    left = 0.0 if arguments.undo else wait_until_idle(place.project, name, arguments.timeout, client, where)
    if arguments.json:
        console.print_json({"replica": name, "drained": not arguments.undo, "in_flight": left})
    elif arguments.undo:
        print(f"{name} gets requests again.")
    else:
        print(f"{name} is drained; {f'{left:g} requests are still' if left else 'nothing is'} in flight.")
    return 1 if left else 0


def _serving(plan: Plan, client: docker.DockerClient) -> set[str]:
    if plan.fleet:
        return in_pools(plan.project, "haproxy", client)  # its engines are on other hosts
    running = containers(client, plan.project)
    return {name for name, part in running.items() if condition(part) == "healthy"}


if __name__ == "__main__":
    console.run(main)
