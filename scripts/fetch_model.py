#!/usr/bin/env python3
"""Bring every model of a stack onto this host: from the hub, a mirror or an archive; folders of your own are checked.

The running stack does not notice. Run again, it goes on where it was cut off.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path

from stack import console, inputs
from stack.config.load import load_config
from stack.models.fetch import ensure_models, look


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/fetch_model.py stack.yaml --token-file secrets/hub-token",
    )
    parser.add_argument("stack", type=Path, metavar="STACK", help="the stack file, such as stack.yaml")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with the token that opens gated models (not the token)"
    )
    parser.add_argument(
        "--look", action="store_true", help="only say what is missing, and whether the disk has room for it"
    )
    parser.add_argument("--offline", action="store_true", help="with --look: ask no hub for sizes")
    parser.add_argument("--json", action="store_true", help="print what is where as JSON")
    arguments = parser.parse_args()
    shown = str(arguments.stack)
    bring = partial(look, offline=arguments.offline) if arguments.look else ensure_models
    outcomes = bring(load_config(arguments.stack, shown), inputs.ROOT, console.say, shown, arguments.token_file)
    if arguments.json:
        console.print_json([asdict(outcome) for outcome in outcomes])
    else:
        rows = [[outcome.served_model_name, outcome.what, outcome.folder] for outcome in outcomes]
        print(console.table(["model", "", "folder"], rows))
    return 0


if __name__ == "__main__":
    console.run(main)
