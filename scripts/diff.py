#!/usr/bin/env python3
"""What `make up` would change: by file, and which parts it would recreate or reload. Touches nothing."""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.effects import effects, service_hashes
from stack.tree import checksums, compare, read_tree, texts, unified


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/diff.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print files and effects as JSON")
    arguments = parser.parse_args()
    found = inputs.gather(arguments)
    plan = found.plans()[0]
    old, new = read_tree(found.live), found.render(plan)
    changes = compare(old, new)
    parts = effects(checksums(old), checksums(new), service_hashes(old), service_hashes(new))
    if arguments.json:
        files = [{"path": change.path, "kind": change.kind} for change in changes]
        console.print_json({"files": files, "effects": parts})
    else:
        for one in texts(old, new):
            print(unified(one, "applied", "planned"), end="")
        for part, effect in parts.items():
            print(f"{effect}: {part}")
        if not changes:
            print("No difference to what is applied.")
    return 0


if __name__ == "__main__":
    console.run(main)
