"""Releases that a host does not keep any more go, with all that is theirs alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from pathlib import Path

from stack.console import say
from stack.deploy import records
from stack.deploy.place import ReleasePlace, tree_of

# A tree without a record may be that of a deploy that waits for its turn.
UNRECORDED_SECONDS = 86400.0


def keep_only(place: ReleasePlace, stay: Collection[str]) -> list[str]:
    """Remove the other releases that were applied, and what was sent and never was; their names.

    The one that runs, and the one that it would be gone back to from, are for the caller to name.
    """
    known = records.load_all(place.releases)
    states = {record.id: Path(record.state) for record in known}
    gone = sorted(({record.id for record in known} | _left_over(place)) - {*stay, place.running()})
    for name in gone:
        say(f"removing release {name}")
        # under another name first: half of a release must not look like one that can be gone back to
        aside = place.releases / f".{name.strip('.')}.removed"
        (place.releases / name).rename(aside)
        for folder in (aside, tree_of(states.get(name, place.state), name)):
            shutil.rmtree(folder, ignore_errors=True)
        place.record(name).unlink(missing_ok=True)
    for record in place.releases.glob("*.json"):
        if not record.with_suffix("").is_dir():
            record.unlink()
    for name in unused_pythons(place):
        shutil.rmtree(place.root / "venvs" / name, ignore_errors=True)
    return gone


def unused_pythons(place: ReleasePlace) -> set[str]:
    """Folders of venvs/ that no release links to; one that was just made may belong to a release on its way."""
    used = {link.readlink().name for link in place.releases.glob("*/.venv") if link.is_symlink()}
    return {
        path.name
        for path in (place.root / "venvs").glob("*")
        if path.name not in used and time.time() - path.stat().st_mtime > UNRECORDED_SECONDS
    }


def _left_over(place: ReleasePlace) -> set[str]:
    """Trees that were sent and never applied, or half sent."""
    return {
        path.name
        for path in place.releases.iterdir()
        if path.is_dir() and not place.record(path.name).exists()
        and time.time() - path.stat().st_mtime > UNRECORDED_SECONDS
    }  # fmt: skip
