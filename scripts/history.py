#!/usr/bin/env python3
"""What changed on this host between two of its releases: files, and which parts were recreated or reloaded for it."""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, inputs
from stack.deploy import records
from stack.deploy.history import changes, program_changes, rendered_effects
from stack.deploy.place import place_here, tree_of
from stack.deploy.records import Record
from stack.errors import InputError
from stack.tree import read_tree, unified


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: /opt/vllm-onprem/current/.venv/bin/python /opt/vllm-onprem/current/scripts/history.py"
        " /opt/vllm-onprem/current/stack.yaml --from 3f2a --to 9c41",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--from", dest="old", metavar="ID", help="a release (default: the one before --to)")
    parser.add_argument("--to", dest="new", metavar="ID", help="a release (default: the one that runs)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    place = place_here(inputs.place(arguments).state)
    known, running = records.load_all(place.releases), place.running()
    new = records.find(known, arguments.new or running or "")
    old = records.find(known, arguments.old) if arguments.old else records.previous(known, new.id)
    if old is None:
        raise InputError(new.id, "there is no other release on this host to compare it with")
    before, after = _rendered(old), _rendered(new)
    files = changes(place.releases / old.id, place.releases / new.id, before, after)
    program = program_changes(place.releases / old.id, place.releases / new.id)
    effects = rendered_effects(before, after)
    if arguments.json:
        told = [{"path": one.path, "kind": one.kind, "diff": unified(one, old.id, new.id)} for one in files]
        ends = {"from": records.summary(old, running), "to": records.summary(new, running)}
        console.print_json({**ends, "files": told, "program": program, "effects": effects})
        return 0
    print(f"from {_shown(old)}\nto   {_shown(new)}")
    for one in files:
        print(unified(one, old.id, new.id), end="")
    if program:
        print(f"program: {len(program)} files differ, such as {', '.join(program[:3])}")
    for part, effect in effects.items():
        print(f"{effect}: {part}")
    if not files and not program:
        print("No difference.")
    return 0


def _rendered(record: Record) -> dict[str, bytes]:
    tree = read_tree(tree_of(Path(record.state), record.id))
    if not tree:
        raise InputError(record.id, "what was rendered of it is not here any more")
    return tree


def _shown(record: Record) -> str:
    commit = (record.made.commit or "no commit")[:12] + ("+changes" if record.made.dirty else "")
    return f"{record.id}  {commit}  {record.made.when}  {record.made.who}"


if __name__ == "__main__":
    console.run(main)
