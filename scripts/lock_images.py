#!/usr/bin/env python3
"""Write the digest that each image of compose/images.yaml has at the registry now into compose/images.lock.

What does not answer stays as it was. The stack file says with images.mirror which registry is asked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console
from stack.config.load import load_config
from stack.docker_host import connect
from stack.errors import StackError
from stack.images.lock import read_lock
from stack.images.pins import load_pins
from stack.images.registry import ask_digests, write_lock
from stack.inputs import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/lock_images.py stack.yaml")
    parser.add_argument("stack", type=Path, metavar="STACK", help="the stack file, such as stack.yaml")
    parser.add_argument("--json", action="store_true", help="print image -> digest as JSON")
    arguments = parser.parse_args()
    mirror = load_config(arguments.stack, str(arguments.stack)).images.mirror
    pins, before = load_pins(ROOT).all(), read_lock(ROOT)
    with console.step(f"asking {mirror or 'the registry'} for digests"):
        found, failed = ask_digests(connect(), pins, mirror)
    after = write_lock(ROOT, pins, found)
    if arguments.json:
        console.print_json(after)
    else:
        rows = [[name, digest or "null", _news(name, digest, before, failed)] for name, digest in after.items()]
        print(console.table(["image", "digest", ""], rows))
    if failed:
        raise StackError("\n".join([f"{len(failed)} of {len(pins)} digests stay as they were", *failed.values()]))
    return 0


def _news(name: str, digest: str | None, before: dict[str, str | None], failed: dict[str, str]) -> str:
    if name in failed:
        return "not resolved"
    earlier = before.get(name)
    if earlier is None:
        return "resolved"
    return "unchanged" if digest == earlier else f"CHANGED, was {earlier}"


if __name__ == "__main__":
    console.run(main)
