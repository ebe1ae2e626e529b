"""A backup back in its place: checked whole first, then the stack's files in one step each, then the volumes.

What was there before is put aside, not deleted; a volume's old content is. Where the stack runs, clients see the
restored keys and certificate at once, and only what has a volume is restarted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import docker

from stack import certificates
from stack.adjust import adjust, with_certificate
from stack.console import say
from stack.day2 import archive, volumes
from stack.day2.archive import Entry, Manifest
from stack.day2.backup import REPLACED, kept_files
from stack.docker_host import SERVICE_LABEL, compose, containers
from stack.errors import InputError, StackError
from stack.inputs import ROOT, Place


@dataclass(frozen=True)
class Outcome:
    """What a restore did: files and volumes, what was reloaded or restarted, where the files of before are."""

    files: int
    volumes: tuple[str, ...]
    touched: tuple[str, ...]
    put_aside: str | None


def has_something(place: Place, client: docker.DockerClient) -> bool:
    """Whether a restore would replace anything."""
    return (place.state.is_dir() and any(True for _ in kept_files(place.state))) or bool(
        volumes.of_project(client, place.project)
    )


def check_is_ours(path: Path, manifest: Manifest, place: Place) -> None:
    """Raises InputError for a backup of another stack."""
    if manifest.stack != place.project:
        raise InputError(str(path), f"a backup of the stack {manifest.stack!r}, and this is {place.project!r}")


def restore(
    place: Place, shared: Path, manifest: Manifest, opened: tarfile.TarFile, now: str, client: docker.DockerClient
) -> Outcome:
    """Put everything back. now: UTC, for the folder that takes what was there. shared: the folder of models.lock."""
    aside = _files(place.state, manifest, opened, now)
    if "models.lock" in manifest.members and not (shared / "models.lock").exists():
        _write(shared / "models.lock", archive.stream(opened, "models.lock"), manifest.members["models.lock"])
    touched = _volumes(place, manifest, opened, client)
    nginx = containers(client, place.project).get("nginx")
    if nginx is not None and nginx.status == "running":
        certificate = _shown(place.state)
        touched += adjust(place.project, place.state, ROOT, client, with_certificate(certificate))
        certificates.keep_only(place.state, certificate)
    count = sum(name.startswith("state/") for name in manifest.members)
    return Outcome(count, tuple(manifest.volumes), tuple(touched), str(aside) if aside else None)


def _files(state: Path, manifest: Manifest, opened: tarfile.TarFile, now: str) -> Path | None:
    """Replace file by file: containers mount these folders, and would go on with one that was renamed."""
    new, old = state / ".restoring", state / f"{REPLACED}{now}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    names = [name.removeprefix("state/") for name in manifest.members if name.startswith("state/")]
    for name in names:
        _write(new / name, archive.stream(opened, f"state/{name}"), manifest.members[f"state/{name}"])
    before = [path.relative_to(state) for path in kept_files(state)]
    if before:
        old.mkdir(mode=0o700)
    for path in before:
        (old / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy2(state / path, old / path)
    for folder, (mode, uid, gid) in sorted(manifest.folders.items()):
        (state / folder).mkdir(parents=True, exist_ok=True)
        (state / folder).chmod(mode)
        with suppress(PermissionError):
            os.chown(state / folder, uid, gid)
    for name in names:
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).rename(state / name)
    for path in before:
        # a pair that nginx still shows goes when it shows the restored one
        if str(path) not in names and path.parts[0] != "tls":
            (state / path).unlink()
    shutil.rmtree(new)
    return old if before else None


def _write(path: Path, content: IO[bytes], entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file)
    # without root, what belongs to a container's user is handed over by `make up`
    with suppress(PermissionError):
        os.chown(path, entry.uid, entry.gid)
    path.chmod(entry.mode)


def _volumes(place: Place, manifest: Manifest, opened: tarfile.TarFile, client: docker.DockerClient) -> list[str]:
    began: list[str] = []
    for name in manifest.volumes:
        parts = volumes.users(client, place.project, f"{place.project}_{name}")
        ran = [part.labels[SERVICE_LABEL] for part in parts if part.status == "running"]
        for part in parts:
            part.stop()
            part.remove()
        volumes.load(client, place.project, name, archive.stream(opened, f"volumes/{name}.tar"))
        say(f"restored the volume {place.project}_{name}")
        if ran:
            compose(place.live, "up", "--detach", "--no-deps", "--no-build", "--pull", "never", *ran)
            began += ran
    return began


def _shown(state: Path) -> str:
    trust = certificates.client_trust_file(state)
    name = hashlib.sha256(trust.read_bytes()).hexdigest()[:16]
    if not certificates.private_key_file(state, name).exists():
        raise StackError(f"{trust} has no private key in {state / 'tls'}: `make up` makes a new pair")
    return name
