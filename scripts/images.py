#!/usr/bin/env python3
"""The container images of a stack: make them present (get), or carry them to a host without a registry (save, load).

The running stack does not notice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, image_record, inputs
from stack.docker_host import connect
from stack.errors import InputError
from stack.images import carry
from stack.images.archive import sums_of
from stack.images.choice import choose
from stack.images.store import provide
from stack.inputs import ROOT, Inputs
from stack.locks import taking_turns


def main() -> int:
    arguments = _arguments()
    found = inputs.gather(arguments)
    config = found.config
    if arguments.action == "load" and found.source != "archive":
        what = f"{found.source!r} needs no archive; to load one: images: {{source: archive, archive: FILE}}"
        raise InputError(found.shown, f"images.source: {what}")
    own = config.images.archive
    if arguments.action == "save" and own and (ROOT / own).resolve() == arguments.archive.resolve():
        raise InputError(str(arguments.archive), "the stack's own images.archive: name another file to save to")
    client = connect()
    with taking_turns(found.shared):
        made = provide(ROOT, config.images, found.source, config.device, console.say, client, config.images_unwanted)
        image_record.add(found.shared, made)
        if arguments.action == "save":
            return _save(found, arguments.archive, arguments.json)
    if made:
        console.say(f"{len(made)} images {HOW[found.source]}")
    references = inputs.gather(arguments).images
    if arguments.json:
        console.print_json(references)
    else:
        print("\n".join(f"{role:14} {reference}" for role, reference in sorted(references.items())))
    return 0


HOW = {"build": "built", "registry": "pulled", "archive": "loaded"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/images.py stack.yaml save --archive images.tar"
    )
    inputs.add_arguments(parser)
    parser.add_argument("action", nargs="?", choices=("get", "save", "load"), default="get")
    parser.add_argument("--archive", type=Path, metavar="FILE", default=Path("images.tar"), help="what save writes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def _save(found: Inputs, path: Path, as_json: bool) -> int:
    chosen = choose(ROOT, found.config.images, found.source, found.config.device, found.config.images_unwanted)
    total = carry.save(path, chosen, console.say, connect())
    if as_json:
        console.print_json({"archive": str(path), "sha256": total})
    else:
        print(f"{path}\n{sums_of(path)}\nCopy both files to the host, and name the archive in its stack file:\n"
              f"  images: {{source: archive, archive: /path/there/{path.name}}}")  # fmt: skip
    return 0


if __name__ == "__main__":
    console.run(main)
