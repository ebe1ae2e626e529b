"""What a release needs of its host beside its own files: images by their ID, models by their revision, its Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound

from stack.config.folders import absolute
from stack.config.schema import StackConfig
from stack.deploy.records import Record
from stack.errors import InputError, Problem
from stack.models import lock as models_lock
from stack.models.parts import parts_of


def image_ids(plan: Mapping[str, Any], client: docker.DockerClient) -> dict[str, str]:
    """Reference -> ID of every image that a plan names and this host has."""
    engines = (*plan["engines"], *plan.get("cordoned", ()))
    references = {*plan["images"].values(), *(engine["image"] for engine in engines)}
    found = {reference: image_id(reference, client) for reference in sorted(references)}
    return {reference: identity for reference, identity in found.items() if identity}


def image_id(reference: str, client: docker.DockerClient) -> str | None:
    """ID of an image, or None where it is not here."""
    try:
        return str(client.images.get(reference).id)
    except ImageNotFound:
        return None


def model_revisions(config: StackConfig, root: Path) -> dict[str, str]:
    """Folder -> revision of every model and adapter of a stack file."""
    shared = absolute(root, config.paths.state)
    return revisions([str(part.folder) for part in parts_of(config, root)], shared)


def revisions(folders: Iterable[str], shared: Path) -> dict[str, str]:
    """Folder -> commit or checksum that came into it, as models.lock has it; "" for what no fetch brought."""
    known = models_lock.read(shared / "models.lock")
    entries = {str(shared / "models" / name): entry for name, entry in known.items()}
    return {
        folder: str(entry.get("commit") or entry.get("sha256") or "")
        for folder in folders
        for entry in (entries.get(folder, {}),)
    }


def missing(
    record: Record, python: Path, images: Mapping[str, str | None], models: Mapping[str, str | None]
) -> Iterator[Problem]:
    """What a release needs and the host has no more. images: reference -> ID, models: folder -> revision, as they are
    now; None where it is not there.
    """
    if not python.exists():
        yield Problem("python", f"{python} is not there: `make deploy` makes it anew")
    for reference, wanted in sorted(record.images.items()):
        now = images.get(reference)
        if now is None:
            yield Problem("images", f"{reference} ({wanted[:19]}) is not on this host any more")
        elif now != wanted:
            yield Problem("images", f"{reference} is {now[:19]} now; this release ran {wanted[:19]}")
    for folder, wanted in sorted(record.models.items()):
        revision = models.get(folder)
        if revision is None:
            yield Problem("models", f"{folder} is not on this host any more")
        elif wanted and revision != wanted:
            yield Problem("models", f"{folder} holds {revision or 'another revision'}; this release ran {wanted}")


def refuse_missing(record: Record, tree: Path, shared: Path, client: docker.DockerClient) -> None:
    """Raise InputError, with everything that is gone, unless this host can still run a release. tree: its program."""
    images = {reference: image_id(reference, client) for reference in record.images}
    here = revisions([folder for folder in record.models if Path(folder).is_dir()], shared)
    problems = list(missing(record, tree / ".venv/bin/python", images, here))
    if problems:
        advice = f"nothing was changed; `make deploy` of {record.made.commit or 'its stack file'} brings it back"
        raise InputError(f"release {record.id}", [*problems, Problem("", advice)])
