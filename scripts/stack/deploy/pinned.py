"""What a host may pull: images by digest, so that each gets what the others have."""

from __future__ import annotations

from collections.abc import Mapping

from stack.errors import InputError
from stack.images.lock import LOCK
from stack.images.pins import Source


def refuse_unpinned(source: Source, images: Mapping[str, str]) -> None:
    """images: role -> reference. Raises InputError for those of a registry whose digest is not known yet."""
    unpinned = sorted(image for image in images.values() if "@" not in image)
    if source == "registry" and unpinned:
        raise InputError(str(LOCK), f"no digest yet of {', '.join(unpinned)}: `make lock`, and commit it")
