#!/usr/bin/env python3
"""Make a host's release on the controller: the program, the stack file as that host has it, and its hosts entry.

Without --host it is the one release that all hosts of a fleet get.
Written are a folder to render from and an archive to send. The playbook deploy.yml calls this.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

from stack import console
from stack.config.folders import state_dir
from stack.config.load import load_config
from stack.deploy import provenance, release
from stack.inputs import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/release.py stack.yaml --hosts hosts.yaml --host gpu1"
        " --state /var/lib/vllm-onprem/stack --output build/deploy/gpu1",
    )
    parser.add_argument("stack", type=Path, metavar="STACK", help="the stack file, such as stack.yaml")
    parser.add_argument("--hosts", type=Path, required=True, metavar="FILE", help="hosts file that names the host")
    parser.add_argument("--host", metavar="NAME", help="the host's name there (default: all hosts of a fleet)")
    parser.add_argument("--state", required=True, metavar="DIR", help="the host's folder for state")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write on this machine")
    parser.add_argument("--images", metavar="SOURCE", help="another images.source than the stack file's")
    arguments = parser.parse_args()
    files = release.files_of(
        ROOT, arguments.stack, arguments.hosts, arguments.host, arguments.state, arguments.images or None
    )
    name, folder = release.release_id(files), arguments.output / "release"
    packed = arguments.output / f"{name}.tar.gz"
    shutil.rmtree(arguments.output, ignore_errors=True)
    release.write(files, folder)
    packed.write_bytes(release.archive(files))
    config = load_config(folder / release.STACK)
    commit, dirty = provenance.revision(ROOT)
    console.print_json(
        {
            "id": name,
            "made": {
                "commit": commit,
                "dirty": dirty,
                "who": provenance.who(),
                "when": provenance.now(),
                "common": release.release_id({path: file for path, file in files.items() if path != release.HOSTS}),
            },
            "folder": str(folder),
            "archive": str(packed),
            "requirements": hashlib.sha256(files[release.REQUIREMENTS].content).hexdigest()[: release.ID_LENGTH],
            "stack": files[release.STACK].content.decode(),
            "name": config.name,
            "state": str(state_dir(config, ROOT)),
            "images": config.images.model_dump(),
            "mounts": [model.source.path for model in config.models if model.source.path],
        }
    )
    return 0


if __name__ == "__main__":
    console.run(main)
