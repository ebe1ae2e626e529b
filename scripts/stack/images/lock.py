"""compose/images.lock: the digest of every image, by the name it has at its own registry.

A digest gets there in two ways: `make lock`, and the first use of an image that has none. Nothing else changes one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import yaml

from stack.errors import InputError, StackError
from stack.yaml_input import parsed

LOCK = Path("compose/images.lock")
Lock = dict[str, str | None]

HEAD = """\
# Digest of each image in images.yaml, by its name at its own registry: the same with and without images.mirror.
# null: not resolved yet; `make lock` asks the registry, and so does the first use. Written by a tool that asked,
# never by hand.
"""


def read_lock(root: Path) -> Lock:
    """Reference -> digest or None. Raises InputError when the file is no mapping."""
    try:
        document = parsed((root / LOCK).read_text()) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise InputError(
            str(LOCK), f"not YAML ({str(error).splitlines()[0]}): restore it from version control"
        ) from None
    if not isinstance(document, dict):
        raise InputError(str(LOCK), "not a mapping of image to digest: restore it from version control")
    return document


def change_lock(root: Path, change: Callable[[Lock], Lock]) -> Lock:
    """Replace the lock by what `change` makes of it, in one step; the new one. Raises StackError: not writable."""
    path = root / LOCK
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # two stacks of one checkout may resolve the same image at once
            before = read_lock(root)
            after = change(dict(before))
            if after != before:
                _write(path, HEAD + yaml.safe_dump(after, sort_keys=True, width=200))
        finally:
            os.close(folder)
    except OSError as error:
        raise StackError(
            f"{LOCK} cannot be written ({error.strerror}), so the digests would not be kept: run `make lock` as the"
            " owner of this checkout. Nothing was pulled."
        ) from None
    return after


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    if os.geteuid() == 0 and path.exists():  # `sudo make up` must not take the file from the checkout's owner
        os.chown(partial, path.stat().st_uid, path.stat().st_gid)
    partial.replace(path)
