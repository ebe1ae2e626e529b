"""A release becomes the one that runs: noted when it begins, recorded when it is proven, the oldest then removed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from stack.config.schema import StackConfig
from stack.console import say
from stack.deploy import needs, records
from stack.deploy.place import ReleasePlace, tree_of
from stack.deploy.provenance import now
from stack.deploy.records import How, Made, Record
from stack.errors import InputError
from stack.images.archive import ArchiveList
from stack.plan.types import Plan
from stack.tree import read_tree, write_tree

# A tree without a record may be that of a deploy that waits for its turn.
UNRECORDED_SECONDS = 86400.0
Finish = Callable[[Plan, Mapping[str, bytes], StackConfig, ArchiveList | None, docker.DockerClient], None]


@dataclass(frozen=True)
class Activation:
    """One release about to be applied. made: what its controller says of it; None: its own record says it already.

    who: who asked for it now. keep: how many releases stay on the host; None: all that are there.
    """

    place: ReleasePlace
    release: str
    made: Made | None
    how: How
    who: str
    keep: int | None

    def check(self) -> None:
        """Raise InputError unless it is known where the release is from."""
        if self.made is None and not self.place.record(self.release).is_file():
            raise InputError(self.release, "it was never applied here, so it has no record: `make deploy` it")

    @contextmanager
    def going_on(self, live: Path, shipped: Path) -> Iterator[Finish]:
        """Hold while the release is applied; what it gives is called when the release is proven.

        A block that fails after what ran before was put back leaves no note. Whoever was killed leaves one, by which
        the next rollback knows that the release that runs by name is the one to go back to.
        """
        before = read_tree(live)
        self.place.unfinished.write_text(f"{self.release}\n")

        def finish(
            plan: Plan, files: Mapping[str, bytes], config: StackConfig, archive: ArchiveList | None,
            client: docker.DockerClient,
        ) -> None:  # fmt: skip
            write_tree(tree_of(self.place.state, self.release), files)
            # the next difference is to what runs, also after a rollback, which nothing was sent for
            write_tree(shipped, files)
            self._record(plan, config, archive, client)
            self._switch()
            self.place.unfinished.unlink(missing_ok=True)
            if self.keep is not None:
                self._remove_oldest(self.keep)

        try:
            yield finish
        except BaseException:
            if read_tree(live) == before:
                self.place.unfinished.unlink(missing_ok=True)
            raise

    def _record(
        self, plan: Plan, config: StackConfig, archive: ArchiveList | None, client: docker.DockerClient
    ) -> None:
        path = self.place.record(self.release)
        known = records.load(path) if path.is_file() else None
        made = known.made if known else self.made
        assert made, "check() refuses a release that nothing is known of"
        record = Record(
            id=self.release, made=made, state=str(self.place.state), images=needs.image_ids(plan.as_dict(), client),
            models=needs.model_revisions(config, self.place.releases / self.release), archive=archive,
            applied=known.applied if known else (),
        )  # fmt: skip
        if self.place.running() != self.release or not record.applied:
            record = records.with_applied(record, self._known(), self.how, self.who, now())
        if record != known:
            records.save(path, record)

    def _switch(self) -> None:
        if self.place.running() == self.release:
            return
        # beside it and renamed, so that there is no moment without one
        partial = self.place.link.with_name(".current.partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to(f"releases/{self.release}")
        partial.rename(self.place.link)

    def _known(self) -> list[Record]:
        return records.load_all(self.place.releases)

    def _remove_oldest(self, keep: int) -> None:
        known = self._known()
        states = {record.id: Path(record.state) for record in known}
        stay = records.kept(known, self.release, keep)
        for name in sorted({record.id for record in known} - stay | self._left_over()):
            say(f"removing release {name}")
            # under another name first: half of a release must not look like one that can be gone back to
            gone = self.place.releases / f".{name.strip('.')}.removed"
            (self.place.releases / name).rename(gone)
            for folder in (gone, tree_of(states.get(name, self.place.state), name)):
                shutil.rmtree(folder, ignore_errors=True)
            self.place.record(name).unlink(missing_ok=True)
        for record in self.place.releases.glob("*.json"):
            if not record.with_suffix("").is_dir():
                record.unlink()
        for name in unused_pythons(self.place):
            shutil.rmtree(self.place.root / "venvs" / name, ignore_errors=True)

    def _left_over(self) -> set[str]:
        """Trees that were sent and never applied, or half sent."""
        return {
            path.name
            for path in self.place.releases.iterdir()
            if path.is_dir() and not self.place.record(path.name).exists() and path.name != self.release
            and time.time() - path.stat().st_mtime > UNRECORDED_SECONDS
        }  # fmt: skip


def no_release(*_: object) -> None:
    """For what is brought up from a checkout: nothing is recorded."""


def unused_pythons(place: ReleasePlace) -> set[str]:
    """Folders of venvs/ that no release links to; one that was just made may belong to a release on its way."""
    used = {link.readlink().name for link in place.releases.glob("*/.venv") if link.is_symlink()}
    return {
        path.name
        for path in (place.root / "venvs").glob("*")
        if path.name not in used and time.time() - path.stat().st_mtime > UNRECORDED_SECONDS
    }


def command(place: ReleasePlace, release: str, *more: str) -> list[str]:
    """What applies a release: its own program, on its own Python, with its own stack file."""
    tree = place.releases / release
    return [
        str(tree / ".venv/bin/python"), str(tree / "scripts/activate.py"), str(tree / "stack.yaml"),
        f"--hosts={tree / 'hosts.yaml'}", *more,
    ]  # fmt: skip
