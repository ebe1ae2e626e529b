#!/usr/bin/env python3
"""Write the files of a stack to build/<host>/ (or elsewhere). The running stack does not notice: `make up` applies."""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, inputs
from stack.tree import compare, read_tree, write_tree


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/render.py stack.yaml --output /tmp/look"
    )
    inputs.add_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="instead of the stack's own build folder")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    arguments = parser.parse_args()
    found = inputs.gather(arguments)
    output = arguments.output or found.build
    written = {}
    for plan in found.plans():
        folder = output / plan.host
        files = found.render(plan)
        written[str(folder)] = [change.path for change in compare(read_tree(folder), files)]
        write_tree(folder, files)
    if arguments.json:
        console.print_json(written)
    else:
        for folder_name, paths in written.items():
            print(f"{folder_name}: {len(paths)} files written" if paths else f"{folder_name}: unchanged")
    return 0


if __name__ == "__main__":
    console.run(main)
