#!/usr/bin/env python3
"""In which order the engines of a fleet are changed to go back to this release, by what each host said (stdin).

The playbook rollback_fleet.yml calls this on the host of Prometheus, with what `fleet_host.py tell` said on all hosts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from stack import console, inputs
from stack.config.load import load_config
from stack.deploy import fleet_deploy
from stack.hardware import load_hosts


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/fleet_steps.py stack.yaml --hosts hosts.yaml < told.json"
    )
    inputs.add_arguments(parser)
    parser.add_argument("--look", action="store_true", help="do not refuse a gap in service")
    arguments = parser.parse_args()
    shown = str(arguments.stack)
    load_config(arguments.stack, shown)
    told = {host.plan.host: host for host in map(fleet_deploy.from_told, json.load(sys.stdin))}
    names = [host.name for host in load_hosts(arguments.hosts)]
    fleet_deploy.refuse_other_hosts(list(told.values()), names, str(arguments.hosts))
    hosts = [told[name] for name in names]
    batches = fleet_deploy.batches_of(hosts)
    if not arguments.look and not os.environ.get("ALLOW_DOWNTIME"):
        fleet_deploy.refuse_downtime(batches, shown)
    console.print_json(fleet_deploy.told_of(hosts, batches))
    return 0


if __name__ == "__main__":
    console.run(main)
