#!/usr/bin/env python3
"""Bring up, on a host, the release that this program is part of; once proven it is recorded and is the current one.

It is what `make up` does, and run in the background of the host: the playbook deploy.yml and scripts/rollback.py do.
On a host of a fleet it is the last step of its deploy, or of its rollback: its engines are done by then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import ValidationError

from stack import console, fleet_host, inputs, lifecycle
from stack.deploy.activation import Activation
from stack.deploy.place import place_here
from stack.deploy.provenance import who
from stack.deploy.records import How, Made
from stack.errors import InputError
from stack.inputs import ROOT
from stack.locks import add_wait_argument


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/activate.py stack.yaml --hosts hosts.yaml --rollback",
    )
    inputs.add_arguments(parser)
    parser.add_argument(
        "--shipped", type=Path, metavar="DIR", help="a tree that was rendered elsewhere: nothing else is brought up"
    )
    parser.add_argument("--made", metavar="JSON", help="what release.py said of where the release is from")
    parser.add_argument(
        "--rollback", action="store_true", help="go back to it: images and models are those that are here"
    )
    parser.add_argument("--keep", type=int, metavar="N", help="releases that stay; the others go (default: all stay)")
    add_wait_argument(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(again=False)
    arguments = parser.parse_args()
    place = place_here(inputs.place(arguments).state)
    release, before = ROOT.name, place.running()
    if arguments.rollback:
        arguments.kept = place.record(release)
    how: How = "rollback" if arguments.rollback else "deploy"
    activation = Activation(place, release, _made(arguments.made), how, who(), arguments.keep)
    activation.check()
    of_fleet = arguments.shipped is not None and fleet_host.is_one(arguments)
    plan, done = (fleet_host if of_fleet else lifecycle).up(arguments, activation)
    if arguments.json:
        url = lifecycle.gateway_url(plan.as_dict())
        became = before != release
        console.print_json({"host": plan.host, "release": release, "before": before, "became_current": became,
                            "done": done, "url": url, "kept": place.kept()})  # fmt: skip
        return 0
    print("\n".join(done) if done else "Nothing was restarted.")
    print(f"Release {release} runs" + (f"; before it {before} did." if before not in (None, release) else "."))
    return 0


def _made(text: str | None) -> Made | None:
    try:
        return Made.model_validate_json(text) if text else None
    except ValidationError as error:
        raise InputError("--made", f"not what release.py said: {error.error_count()} problems in it") from None


if __name__ == "__main__":
    console.run(main)
