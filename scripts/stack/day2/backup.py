"""What cannot be made again, into one archive: secrets, certificates, decisions, and the volumes of metrics.

Prometheus is stopped while its volume is copied. Its snapshot API would not need that, but comes with
--web.enable-admin-api, which lets whoever reaches the port delete every metric - and the engines' network reaches it.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker

from stack.console import say
from stack.day2 import archive, volumes
from stack.day2.archive import Manifest
from stack.errors import InputError, StackError
from stack.images.pins import load_pins
from stack.inputs import ROOT, Place
from stack.locks import only_one

# Made anew by `make up`, or of no use without what ran: everything else in the stack's folder is kept.
LEFT_OUT = ("cache", "checked", "evidence", "live", "lock", "proven", "releases", "shipped", "textfile")
REPLACED = "replaced-"  # what a restore put aside


def make(
    place: Place, shared: Path, stack_file: Path, target: Path, made: str, client: docker.DockerClient
) -> Manifest:
    """Write the archive. shared: the state folder that holds models.lock.

    Raises InputError: nothing to back up; StackError: a file that only root may read.
    """
    if not place.state.is_dir():
        raise InputError(str(place.state), "there is no such stack here: nothing to back up")
    with only_one(place.state):
        sources = {f"state/{path.relative_to(place.state).as_posix()}": path for path in kept_files(place.state)}
        closed = [path for path in sources.values() if not os.access(path, os.R_OK)]
        if closed:
            raise StackError(f"{closed[0]} belongs to the container that reads it: run this as root (sudo make backup)")
        sources["stack.yaml"] = stack_file
        if (shared / "models.lock").is_file():
            sources["models.lock"] = shared / "models.lock"
        target.parent.mkdir(parents=True, exist_ok=True)
        # beside the archive: it is the disk that has to hold it anyway
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as folder:
            for name, volume in sorted(volumes.of_project(client, place.project).items()):
                copy = Path(folder) / f"{name}.tar"
                began = time.monotonic()
                with volumes.resting(client, place.project, str(volume.name)) as rested:
                    volumes.save(client, str(volume.name), copy)
                if rested:
                    say(f"{', '.join(rested)} rested for {time.monotonic() - began:.1f} s")
                sources[f"volumes/{name}.tar"] = copy
            members = {name: archive.entry_of(path) for name, path in sorted(sources.items())}
            version = load_pins(ROOT).vllm_version
            above = {folder for path in kept_files(place.state) for folder in path.parents}
            folders = {folder for folder in above if place.state in folder.parents}
            owners = {
                folder.relative_to(place.state).as_posix(): archive.owner_of(folder) for folder in sorted(folders)
            }
            manifest = Manifest(place.project, made, socket.gethostname(), version, members, owners)
            archive.write(target, manifest, sources)
        return manifest


def kept_files(state: Path) -> Iterator[Path]:
    """Files of a stack's folder that a backup holds, sorted."""
    for entry in sorted(state.iterdir()):
        if entry.name in LEFT_OUT or entry.name.startswith((REPLACED, ".")):
            continue
        yield from sorted(path for path in (entry, *entry.rglob("*")) if path.is_file() and not path.is_symlink())
