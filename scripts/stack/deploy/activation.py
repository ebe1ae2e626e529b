"""A release becomes the one that runs: noted when it begins, recorded when it is proven, the oldest then removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from stack.config.schema import StackConfig
from stack.deploy import needs, records, retention
from stack.deploy.place import ReleasePlace, tree_of
from stack.deploy.provenance import now
from stack.deploy.records import How, Made, Record
from stack.errors import InputError
from stack.images.archive import ArchiveList
from stack.plan.types import Plan
from stack.tree import read_tree, write_tree

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
        """Hold while the release is applied, noted; what it gives is called when the release is proven."""

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
                retention.keep_only(self.place, records.kept(self._known(), self.release, self.keep))

        with noted(self.place, self.release, live):
            yield finish

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


@contextmanager
def noted(place: ReleasePlace, release: str, live: Path) -> Iterator[None]:
    """Hold while a release, or a part of it, is applied; the note of that stays until it is proven.

    A block that fails after what ran before was put back leaves the note that was there before, or none. Whoever was
    killed leaves one, by which the next rollback knows that the release that runs by name is the one to go back to.
    """
    before, earlier = read_tree(live), place.cut_off()
    place.unfinished.write_text(f"{release}\n")
    try:
        yield
    except BaseException:
        if read_tree(live) == before:
            if earlier:
                place.unfinished.write_text(f"{earlier}\n")
            else:
                place.unfinished.unlink(missing_ok=True)
        raise


def no_release(*_: object) -> None:
    """For what is brought up from a checkout: nothing is recorded."""


def command(place: ReleasePlace, release: str, *more: str) -> list[str]:
    """What applies a release: its own program, on its own Python, with its own stack file."""
    tree = place.releases / release
    return [
        str(tree / ".venv/bin/python"), str(tree / "scripts/activate.py"), str(tree / "stack.yaml"),
        f"--hosts={tree / 'hosts.yaml'}", *more,
    ]  # fmt: skip
