#!/usr/bin/env python3
"""Render a host's tree on the controller, with what the host said of itself, and say what it would change there.

Run from the release that the host gets (scripts/release.py makes it). The playbook deploy.yml calls this.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, inputs
from stack.deploy.difference import difference
from stack.deploy.host_state import HostState
from stack.deploy.pinned import refuse_unpinned
from stack.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/render_for_host.py stack.yaml --hosts hosts.yaml --host gpu1 --facts state.json",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--facts", type=Path, required=True, metavar="FILE", help="what host_state.py said there")
    arguments = parser.parse_args()
    found = inputs.gather(arguments)
    refuse_unpinned(found.source, found.images)
    plans = found.plans()
    if len(plans) != 1:
        raise InputError(found.shown, "one host at a time: name it with --host")
    files = found.render(plans[0])
    texts = {path: content.decode() for path, content in files.items()}
    console.print_json({"files": texts, "effects": difference(files, found.told or HostState())})
    return 0


if __name__ == "__main__":
    console.run(main)
