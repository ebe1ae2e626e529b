"""A rendered tree on disk: read, compare, write."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack import render
from stack.errors import StackError
from stack.render import MANIFEST, manifest, unit_of

MODE = int(render.MODE, 8)


@dataclass(frozen=True)
class Change:
    """One file that differs. kind: added, changed or removed; unit and needs as in the manifest."""

    path: str
    kind: str
    unit: str
    needs: str


def read_tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of the files that the folder's manifest lists; empty when there is none.

    Files that a manifest does not know are not ours and are left alone.
    """
    listing = folder / MANIFEST
    if not listing.is_file():
        return {}
    try:
        paths = [entry["path"] for entry in json.loads(listing.read_text())["files"]]
    except (ValueError, KeyError, TypeError):
        raise StackError(f"{listing}: not a manifest; delete {folder} and run again") from None
    files = {path: (folder / path).read_bytes() for path in paths if (folder / path).is_file()}
    return {**files, MANIFEST: listing.read_bytes()}


def compare(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[Change]:
    """What differs from old to new, sorted by path; the manifest itself is not a change."""
    changes = []
    for path in sorted((old.keys() | new.keys()) - {MANIFEST}):
        if old.get(path) != new.get(path):
            kind = "added" if path not in old else "removed" if path not in new else "changed"
            changes.append(Change(path, kind, *unit_of(path)))
    return changes


@dataclass(frozen=True)
class Texts:
    """A file of two trees. kind: added, changed or removed."""

    path: str
    kind: str
    before: bytes
    after: bytes


def texts(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[Texts]:
    """What differs, for a person: without plan.json, which says for machines what the other files say."""
    return [
        Texts(change.path, change.kind, old.get(change.path, b""), new.get(change.path, b""))
        for change in compare(old, new)
        if change.path != "plan.json"
    ]


def unified(one: Texts, old: str, new: str) -> str:
    """The difference of a file as text. old, new: names of the two trees."""
    before, after = (side.decode(errors="replace").splitlines(keepends=True) for side in (one.before, one.after))
    lines = difflib.unified_diff(before, after, f"{old}/{one.path}", f"{new}/{one.path}", n=2)
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Path -> SHA-256 of each file of a tree."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder hold exactly these files (of those a manifest knows).

    Files that do not differ are not touched, each other one is replaced in one step. The manifest names the files of
    both trees until the last one is in place: a run that was cut off leaves nothing that the next one does not know.
    """
    before = read_tree(folder)
    if before.keys() - files.keys() or files.keys() - before.keys():
        _replace(folder / MANIFEST, manifest({**before, **files}))
    for path, content in files.items():
        _partial(folder / path).unlink(missing_ok=True)  # of a run that was cut off
        if path != MANIFEST and before.get(path) != content:
            _replace(folder / path, content)
        elif path in before:
            (folder / path).chmod(MODE)
    for path in before.keys() - files.keys():
        (folder / path).unlink(missing_ok=True)
    if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_bytes() != files[MANIFEST]:
        _replace(folder / MANIFEST, files[MANIFEST])


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.write_bytes(content)
    partial.chmod(MODE)
    partial.rename(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
