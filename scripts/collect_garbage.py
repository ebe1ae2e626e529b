#!/usr/bin/env python3
"""Free what nothing needs: images, models, rendered trees, caches, evidence. Never what runs, or what a way back needs.

Only what this project brought, and only after some days. --dry-run says what would go.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict

from stack import console, inputs
from stack.day2.remove import remove
from stack.day2.unused import KINDS, Ages, unused
from stack.disk_space import gib
from stack.docker_host import connect
from stack.locks import taking_turns


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/collect_garbage.py stack.yaml --dry-run"
    )
    inputs.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--only", choices=KINDS, action="append", help="one kind; may be given again (default: all)")
    parser.add_argument(
        "--days", type=float, default=Ages.days, metavar="D", help="unused since (default: %(default)s)"
    )
    parser.add_argument(
        "--evidence-days", type=float, default=Ages.evidence, metavar="D", help="of evidence (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    found, client = inputs.gather(arguments), connect()
    plans, ages = found.plans(), Ages(arguments.days, arguments.evidence_days)
    refused: dict[str, str] = {}
    with ExitStack() as locks:
        if not arguments.dry_run:  # a fetch, a build or a `make up` that began must not lose what it counts on
            locks.enter_context(taking_turns(found.shared))
            locks.enter_context(taking_turns(found.shared / "models", "waiting for a fetch"))
        may_go = [one for one in unused(found, plans, ages, client) if one.kind in (arguments.only or KINDS)]
        for one in may_go if not arguments.dry_run else ():
            console.say(f"removing {one.what}")
            if why := remove(one, found.shared, found.images["nginx"], client):
                refused[one.what] = why
    freed = sum(one.size for one in may_go if one.what not in refused)
    if arguments.json:
        rows = [{**asdict(one), "refused": refused.get(one.what)} for one in may_go]
        console.print_json({"dry_run": arguments.dry_run, "bytes": freed, "unused": rows})
    else:
        cells = [[one.kind, gib(one.size), f"{one.days:.0f} days", one.what, one.why] for one in may_go]
        print(console.table(["kind", "size", "unused", "what", "why"], cells) if cells else "Nothing is unused.")
        for what, why in refused.items():
            print(f"not removed: {what}: {why}")
        print(f"{'Would free' if arguments.dry_run else 'Freed'} at most {gib(freed)}: images share layers.")
    return 1 if refused else 0


if __name__ == "__main__":
    console.run(main)
