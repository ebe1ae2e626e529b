#!/usr/bin/env python3
"""What `make up` would change: by file, and which parts it would recreate or reload. Touches nothing."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping

from stack import console, inputs
from stack.effects import effects, service_hashes
from stack.tree import Change, checksums, compare, read_tree


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
        for change in changes:
            print("".join(_unified(change, old, new)), end="")
        for part, effect in parts.items():
            print(f"{effect}: {part}")
        if not changes:
            print("No difference to what is applied.")
    return 0


def _unified(change: Change, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[str]:
    if change.path == "plan.json":
        return []  # the same facts as the other files, for machines
    before, after = (
        tree.get(change.path, b"").decode(errors="replace").splitlines(keepends=True) for tree in (old, new)
    )
    lines = list(difflib.unified_diff(before, after, f"applied/{change.path}", f"planned/{change.path}", n=2))
    return [line if line.endswith("\n") else line + "\n" for line in lines]


if __name__ == "__main__":
    console.run(main)
