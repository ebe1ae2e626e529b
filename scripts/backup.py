#!/usr/bin/env python3
"""One archive of what cannot be made again: secrets, certificates, decisions, metrics. It holds secrets: mode 0600.

Requests are served on. Prometheus, Alertmanager and Grafana rest for as long as their volumes take to copy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import console, inputs
from stack.config.folders import absolute
from stack.config.load import load_config
from stack.day2.backup import make
from stack.day2.diagnose import now
from stack.disk_space import gib
from stack.docker_host import connect


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/backup.py stack.yaml --out /mnt/nfs")
    inputs.add_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: backups/ of paths.state)")
    parser.add_argument("--json", action="store_true", help="print what was backed up as JSON")
    arguments = parser.parse_args()
    config, place = load_config(arguments.stack, str(arguments.stack)), inputs.place(arguments)
    made = now()
    folder = arguments.out or absolute(inputs.ROOT, config.paths.state) / "backups"
    target = folder / f"backup-{place.project}-{made}.tar"
    client = connect()
    manifest = make(place, absolute(inputs.ROOT, config.paths.state), arguments.stack, target, made, client)
    size = target.stat().st_size
    if arguments.json:
        console.print_json({"archive": str(target), "bytes": size, "members": sorted(manifest.members)})
    else:
        files = sum(name.startswith("state/") for name in manifest.members)
        print(f"{target} ({gib(size)}): {files} files, volumes {', '.join(manifest.volumes) or 'none'}")
        print("Not in it: models (models.lock names them), caches, images, your own files that the stack file names.")
        print("It holds private keys, and this disk holds it: copy it elsewhere.")
    return 0


if __name__ == "__main__":
    console.run(main)
