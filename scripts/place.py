#!/usr/bin/env python3
"""Write down where the engines of a fleet run, beside its hosts file. What is written there stays where it is."""

from __future__ import annotations

import argparse
import dataclasses

from stack import console, fleet_lock, inputs
from stack.errors import InputError
from stack.hardware import is_fleet
from stack.plan.fleet import places_of


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/place.py stack.yaml --hosts hosts.yaml; git add hosts.lock"
    )
    inputs.add_arguments(parser)
    parser.add_argument("--anew", action="store_true", help="place everything anew: engines move")
    parser.add_argument("--json", action="store_true", help="print what changed as JSON")
    arguments = parser.parse_args()
    found = inputs.gather(arguments)
    if arguments.hosts is None or not is_fleet(found.hosts):
        raise InputError(found.shown, "hosts that run everything place their own engines; only a fleet has a lock")
    path = fleet_lock.lock_file(arguments.hosts)
    old = dict(found.places)
    if arguments.anew:
        found = dataclasses.replace(found, places={})
    new = places_of([plan for plan, _ in found.fleet()])
    if new != old:
        fleet_lock.save(path, new)
    moves = fleet_lock.moves(old, new)
    if arguments.json:
        console.print_json(dataclasses.asdict(moves))
        return 0
    for what, names in dataclasses.asdict(moves).items():
        for name in names:
            place = new.get(name) or old[name]
            print(f"{what:8} {name} on {place.host} {' '.join(place.gpus)}".rstrip())
    print(f"{path}: {len(new)} engines" if new != old else f"{path}: unchanged")
    return 0


if __name__ == "__main__":
    console.run(main)
