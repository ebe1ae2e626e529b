"""Where a host keeps its releases: their trees, records and Pythons, which one runs, and what was rendered of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stack.errors import InputError
from stack.inputs import ROOT


@dataclass(frozen=True)
class ReleasePlace:
    """root: the folder with releases/, venvs/ and current. state: the stack's own folder."""

    root: Path
    state: Path

    @property
    def releases(self) -> Path:
        """A tree and a record of each release."""
        return self.root / "releases"

    @property
    def link(self) -> Path:
        """Names the release that runs."""
        return self.root / "current"

    @property
    def unfinished(self) -> Path:
        """Names the release that is being applied; is there longer only where that was cut off."""
        return self.releases / ".unfinished"

    def running(self) -> str | None:
        """Id of the release that runs."""
        return self.link.readlink().name if self.link.is_symlink() else None

    def cut_off(self) -> str | None:
        """Id of a release that began to be applied and did not come to its end."""
        return self.unfinished.read_text().strip() if self.unfinished.is_file() else None

    def kept(self) -> list[str]:
        """Ids of the releases that are here with a record."""
        return sorted(path.stem for path in self.releases.glob("*.json") if path.with_suffix("").is_dir())

    def record(self, release: str) -> Path:
        """The record of a release."""
        return self.releases / f"{release}.json"


def tree_of(state: Path, release: str) -> Path:
    """What was rendered of a release when it was last applied; its plan.json tells `make gc` what it needs.

    state: the folder of its stack.
    """
    return state / "releases" / release


def place_here(state: Path, root: Path = ROOT) -> ReleasePlace:
    """Of the release that this program is part of. Raises InputError in a checkout."""
    if root.parent.name != "releases":
        raise InputError(
            str(root), "this is no release on a host; from a checkout: `make releases INVENTORY=...`, and the like"
        )
    return ReleasePlace(root.parent.parent, state)
