#!/usr/bin/env python3
"""Render the trees of all hosts of a fleet on the controller, and say in which order its engines are changed.

Run from the release that the hosts get, with what each of them said of itself; deploy_fleet.yml calls this.
A tree is written to OUTPUT/<host>.json as {files, effects}.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from stack import console, fleet_lock, inputs
from stack.deploy import fleet_deploy, fleet_state
from stack.deploy.host_state import HostState
from stack.deploy.pinned import refuse_unpinned
from stack.errors import InputError
from stack.inputs import ROOT
from stack.plan.fleet import places_of
from stack.render import render


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/render_fleet.py stack.yaml --hosts hosts.yaml --facts told --output trees"
        " --lock hosts.lock",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--facts", type=Path, required=True, metavar="DIR", help="<host>.json of what each host said")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the trees are written")
    parser.add_argument(
        "--lock", type=Path, required=True, metavar="FILE", help="the lock beside the user's hosts file"
    )
    parser.add_argument("--place", action="store_true", help="write that lock where it is not what is planned, and end")
    parser.add_argument("--look", action="store_true", help="refuse neither a gap in service nor other places")
    arguments = parser.parse_args()
    arguments.facts.mkdir(parents=True, exist_ok=True)
    found = inputs.gather(arguments)
    refuse_unpinned(found.source, found.images)
    plans = [fleet_deploy.as_sent(plan) for plan, _ in found.fleet()]
    if arguments.place and places_of(plans) != dict(found.places):
        fleet_lock.save(arguments.lock, places_of(plans))
        raise InputError(str(arguments.lock), "it is written now: look at it, commit it, and deploy again")
    told = fleet_state.load_all(arguments.facts, found.config)
    trees = [(plan, render(plan, told.get(plan.host, HostState()).gateway, ROOT)) for plan in plans]
    hosts = fleet_deploy.with_hashes(trees, told)
    batches = fleet_deploy.batches_of(hosts)
    if not arguments.look:
        fleet_deploy.refuse_other_places(plans, found.places, str(arguments.lock))
        if not os.environ.get("ALLOW_DOWNTIME"):
            fleet_deploy.refuse_downtime(batches, found.shown)
    summary = fleet_deploy.told_of(hosts, batches)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for plan, files in trees:
        texts = {path: content.decode() for path, content in files.items()}
        document = {"files": texts, "effects": summary["hosts"][plan.host]["effects"]}
        (arguments.output / f"{plan.host}.json").write_text(json.dumps(document))
    console.print_json(summary)
    return 0


if __name__ == "__main__":
    console.run(main)
