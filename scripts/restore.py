#!/usr/bin/env python3
"""Put a backup back: checked whole before the first change. On a fresh box `make up` starts the stack afterwards.

Where the stack runs, keys and certificate are in force at once, and Prometheus and Alertmanager are restarted.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from stack import console, inputs
from stack.config.folders import absolute
from stack.config.load import load_config
from stack.day2 import archive
from stack.day2.confirm import confirm
from stack.day2.diagnose import now
from stack.day2.restore import check_is_ours, has_something, restore
from stack.docker_host import connect
from stack.locks import only_one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/restore.py stack.yaml backup.tar")
    inputs.add_arguments(parser)
    parser.add_argument("backup", type=Path, metavar="FILE", help="what `make backup` wrote")
    parser.add_argument("--yes", action="store_true", help="do not ask before something is replaced")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    arguments = parser.parse_args()
    place, client = inputs.place(arguments), connect()
    with archive.opened(arguments.backup) as (manifest, opened):
        check_is_ours(arguments.backup, manifest, place)
        if has_something(place, client):
            question = (
                f"The backup of {manifest.made} takes the place of this stack's keys, certificates and metrics:"
                " keys made since stop working, metrics since are gone."
            )
            confirm(place.project, question, yes=arguments.yes)
        with only_one(place.state):
            shared = absolute(inputs.ROOT, load_config(arguments.stack).paths.state)
            done = restore(place, shared, manifest, opened, now(), client)
    if arguments.json:
        console.print_json(asdict(done))
        return 0
    print(f"Restored {done.files} files and the volumes {', '.join(done.volumes) or 'none'} of {manifest.made}.")
    if done.put_aside:
        print(f"The files of before are in {done.put_aside}: they hold secrets, delete them when all is well.")
    print(f"In force: {', '.join(done.touched)}; `make smoke` proves it." if done.touched else "Now: make up")
    return 0


if __name__ == "__main__":
    console.run(main)
