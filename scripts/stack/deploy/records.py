"""What is known of each release of a host: what it was made from, what it needs, and when it was applied.

A record lies beside the release's tree and is written by the program of that release; others only read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stack.console import say
from stack.errors import InputError
from stack.images.archive import ArchiveList

How = Literal["deploy", "rollback"]


class _Kept(BaseModel):
    # a key that a later version adds is no reason not to go back from it
    model_config = ConfigDict(frozen=True, extra="ignore")


class Made(_Kept):
    """Where a release is from. commit: of the checkout it was made in, None where that is none; when: UTC.

    common: the hash of what it has in common with the same deploy's releases of other hosts.
    """

    commit: str | None
    dirty: bool
    who: str
    when: str
    common: str


class Applied(_Kept):
    """One time that a release was made the running one. number: counts over all releases of the host."""

    number: int
    how: How
    who: str
    when: str


class Record(_Kept):
    """One release. state: its stack's folder. images: reference -> image ID.

    models: folder -> the revision that came, "" where none is known.
    archive: the list of the image archive that it was applied with, as the file may be another one later.
    """

    id: str
    made: Made
    state: str
    images: Mapping[str, str]
    models: Mapping[str, str]
    archive: ArchiveList | None
    applied: tuple[Applied, ...]

    @property
    def last(self) -> int:
        """Number of the last time that it was applied."""
        return max((each.number for each in self.applied), default=0)


def load(path: Path) -> Record:
    """Raises InputError."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = error.strerror if isinstance(error, OSError) else f"{error.error_count()} problems in it"
        raise InputError(str(path), f"not a release's record: {what}") from None


def archive_of(record: Path | None) -> ArchiveList | None:
    """The list of the image archive that a release was applied with. Raises InputError."""
    return load(record).archive if record else None


def load_all(folder: Path, tell: Callable[[str], None] = say) -> list[Record]:
    """Every record of a folder of releases whose tree is there too, the last applied first.

    tell: is told of one that cannot be read; a damaged record must not keep a host from being deployed to.
    """
    found = []
    for path in sorted(path for path in folder.glob("*.json") if (folder / path.stem).is_dir()):
        try:
            found.append(load(path))
        except InputError as error:
            tell(f"warning: {error}; its release cannot be gone back to")
    return sorted(found, key=lambda record: -record.last)


def save(path: Path, record: Record) -> None:
    """Replace a record in one step."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(record.model_dump_json(indent=1) + "\n")
    partial.rename(path)


def with_applied(record: Record, known: Iterable[Record], how: How, who: str, when: str) -> Record:
    """The record with one more time that it was applied."""
    number = 1 + max((each.last for each in (*known, record)), default=0)
    return record.model_copy(update={"applied": (*record.applied, Applied(number=number, how=how, who=who, when=when))})


def previous(known: Sequence[Record], running: str | None) -> Record | None:
    """The release that ran before the one that runs: so a second rollback goes back to where the first came from."""
    others = [record for record in known if record.id != running and record.applied]
    return max(others, key=lambda record: record.last, default=None)


def find(known: Sequence[Record], name: str) -> Record:
    """The release of this id, or of this hash that hosts have in common; a beginning will do. Raises InputError."""
    exact = [record for record in known if name in (record.id, record.made.common)]
    found = exact or [record for record in known if _begins(record, name)]
    if not found:
        there = ", ".join(record.id for record in known) or "none"
        raise InputError(name, f"no release of this id is kept here; there are: {there}")
    if len(found) > 1:
        raise InputError(name, f"more than one release: {', '.join(sorted(record.id for record in found))}")
    return found[0]


def _begins(record: Record, name: str) -> bool:
    return bool(name) and any(text.startswith(name) for text in (record.id, record.made.common))


def kept(known: Sequence[Record], running: str | None, count: int) -> set[str]:
    """Ids of the releases that stay: the one that runs, the one before it, and the last applied up to this count."""
    needed = [running, before.id if (before := previous(known, running)) else None]
    by_time = [record.id for record in sorted(known, key=lambda record: -record.last)]
    order = list(dict.fromkeys([name for name in (*needed, *by_time) if name]))
    return set(order[: max(count, 2)])


def target(known: Sequence[Record], running: str | None, unfinished: str | None, wanted: str | None) -> Record:
    """The release that a rollback goes to. Raises InputError.

    unfinished: id of a release that began to be applied and did not come to its end: without a word of where to, the
    way back from it is to the one that ran before it, which is still the running one by name.
    """
    if wanted:
        return find(known, wanted)
    if unfinished and unfinished != running and running:
        return find(known, running)
    before = previous(known, running)
    if before is None:
        raise InputError("rollback", "there is no earlier release on this host: nothing to go back to")
    return before


def fleet_target(
    known: Sequence[Record], running: str | None, noted: Iterable[str | None], wanted: str | None
) -> Record:
    """The release that a rollback of a fleet goes to. Raises InputError.

    known, running: of the host of Prometheus, which gets a release last: what it runs is what the fleet has run as a
    whole. noted: what hosts run, or have begun to; another one than that is of a deploy that did not come to its end.
    """
    cut_off = next((name for name in noted if name and name != running), None)
    return target(known, running, cut_off, wanted)


def refuse_other_stack(record: Record, state: Path) -> None:
    """Raise InputError where a release ran a stack of another name or folder: both would want the same ports."""
    if Path(record.state) != state:
        raise InputError(
            f"release {record.id}", f"its stack is in {record.state}, the one that runs is in {state}: `make deploy` it"
        )


def summary(record: Record, running: str | None) -> dict[str, Any]:
    """One release as a list of releases has it."""
    last = max(record.applied, key=lambda each: each.number, default=None)
    return {
        "id": record.id,
        "running": record.id == running,
        "applied": last.when if last else None,
        "by": last.who if last else None,
        "how": last.how if last else None,
        "times": len(record.applied),
        **record.made.model_dump(),
    }
