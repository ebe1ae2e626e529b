#!/usr/bin/env python3
"""One archive for a bug report or an incident: logs, settings, metrics, versions; keys and passwords taken out.

Changes nothing, also works where half of the stack is broken, and ends within two minutes. Read it before you send it.
"""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from stack import console, inputs
from stack.config.folders import absolute
from stack.config.load import load_config
from stack.day2.diagnose import gathered, now, write
from stack.day2.diagnose_parts import known_secrets, parts
from stack.day2.redact import redactor
from stack.disk_space import gib


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/diagnose.py stack.yaml --out /tmp")
    inputs.add_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: diagnose/ of paths.state)")
    parser.add_argument("--lines", type=int, default=1000, metavar="N", help="of each log (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print path and what is missing as JSON")
    arguments = parser.parse_args()
    config, place, made = load_config(arguments.stack, str(arguments.stack)), inputs.place(arguments), now()
    own = [config.gateway.tls.key] if config.gateway.tls else []
    own += [config.hub.token_file] if config.hub.token_file else []
    secrets = known_secrets(place.state, tuple(absolute(inputs.ROOT, path) for path in own), os.environ)
    files, notes = gathered(list(parts(place, arguments.stack, arguments.lines)), redactor(secrets))
    folder = arguments.out or absolute(inputs.ROOT, config.paths.state) / "diagnose"
    name = f"diagnose-{place.project}-{made}"
    about = {"stack": place.project, "made": made, "host": socket.gethostname()}
    size = write(folder / f"{name}.tar.gz", name, files, notes, about)
    missing = {note.name: note.error for note in notes if note.error}
    if arguments.json:
        console.print_json({"archive": str(folder / f"{name}.tar.gz"), "bytes": size, "missing": missing})
    else:
        print(f"{folder / name}.tar.gz ({gib(size)}, {len(files)} files, {len(missing)} part(s) missing: index.json)")
        print("Known secrets and what looks like one are taken out; names, addresses and paths are not. Read it first.")
    return 0


if __name__ == "__main__":
    console.run(main)
