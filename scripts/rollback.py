#!/usr/bin/env python3
"""Go back to the release that ran before on this host, or to one of those that are kept, by the way of a deploy.

Run on the host, from the release that runs; no controller and no checkout are needed. A second rollback goes back to
where the first came from. Refused, with nothing changed, where an image, a model or the release is gone. The hosts of
a fleet go back together: the playbook rollback_fleet.yml asks here where to.
"""

from __future__ import annotations

import argparse
import os

from stack import console, inputs
from stack.deploy import needs, records
from stack.deploy.activation import command
from stack.deploy.place import place_here
from stack.deploy.provenance import BY, who
from stack.deploy.release import HOSTS
from stack.docker_host import connect
from stack.errors import InputError
from stack.hardware import is_fleet, load_hosts
from stack.locks import add_wait_argument


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: /opt/vllm-onprem/current/.venv/bin/python /opt/vllm-onprem/current/scripts/rollback.py"
        " /opt/vllm-onprem/current/stack.yaml",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--to", metavar="ID", help="a release, by the beginning of its id (default: the previous one)")
    parser.add_argument("--dry-run", action="store_true", help="only say where to, and whether it could be done")
    parser.add_argument("--noted", nargs="*", metavar="ID", help="what hosts of the fleet run or have begun to")
    add_wait_argument(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    arguments = parser.parse_args()
    here = inputs.place(arguments)
    place = place_here(here.state)
    known, running, cut_off = records.load_all(place.releases), place.running(), place.cut_off()
    if not arguments.dry_run and is_fleet(load_hosts(inputs.ROOT / HOSTS)):
        what = "the hosts of a fleet go back together: `make rollback INVENTORY=...`, from any checkout"
        raise InputError(str(inputs.ROOT), what)
    goal = records.fleet_target(known, running, [cut_off, *(arguments.noted or ())], arguments.to)
    records.refuse_other_stack(goal, here.state)
    needs.refuse_missing(goal, place.releases / goal.id, here.state.parent.parent, connect())
    if arguments.dry_run or (goal.id == running and not cut_off):
        return _say(arguments.json, goal, running, cut_off)
    console.say(f"going back to release {goal.id}, made {goal.made.when} by {goal.made.who}")
    os.environ[BY] = who()
    flags = ["--rollback", f"--wait={arguments.wait:g}", *(["--json"] if arguments.json else ())]
    argv = command(place, goal.id, *flags)
    # its own program applies it; signals and the exit code are then that one's
    return os.execv(argv[0], argv)


def _say(as_json: bool, goal: records.Record, running: str | None, cut_off: str | None) -> int:
    if as_json:
        told = records.summary(goal, running)
        console.print_json({"release": goal.id, "before": running, "cut_off": cut_off, "became_current": False,
                            "done": [], "goal": told})  # fmt: skip
    elif goal.id == running and not cut_off:
        print(f"Release {goal.id} runs already: nothing to do.")
    else:
        print(f"Would go back to release {goal.id}, made {goal.made.when} by {goal.made.who}; now runs {running}.")
    return 0


if __name__ == "__main__":
    console.run(main)
