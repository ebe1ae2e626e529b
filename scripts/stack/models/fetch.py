"""Models onto this host before the engines start: engines have no route out.

A model is in its place whole or not at all: everything is brought into a `.partial` folder beside it, checked, and
renamed in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

from stack.config.folders import absolute
from stack.config.schema import StackConfig
from stack.config.source import Source
from stack.disk_space import check_space
from stack.errors import StackError
from stack.locks import taking_turns
from stack.models import hub_access
from stack.models import lock as models_lock
from stack.models.archive import inspect, unpack
from stack.models.config_json import ModelFilesError
from stack.models.parts import Part, check_own, parts_of
from stack.models.transfer import Meter, side_by_side

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """One model after a fetch, or a look. what: fetched, made, here (it was there before), or missing."""

    served_model_name: str
    what: Literal["fetched", "made", "here", "missing"]
    folder: str


def ensure_models(
    config: StackConfig, root: Path, say: Say, shown: str = "stack.yaml", token_file: Path | None = None
) -> list[Outcome]:
    """Make, fetch or unpack every model and adapter that is not there, and check each.

    shown: the stack file's name in messages. Raises InputError for a folder or a token of the user's own that is
    wrong, StackError for what fails on the way. Neither touches a model that is in its place.
    """
    parts = list(parts_of(config, root))
    check_own(parts, root, shown)
    models = absolute(root, config.paths.state) / "models"
    missing = any(not part.folder.is_dir() for part in parts)
    with taking_turns(models, "waiting for another fetch") if missing else nullcontext():
        bring = _Bring(config, root, say, token_file)
        return [Outcome(part.name, bring.one(part), str(part.folder)) for part in parts]


def look(
    config: StackConfig, root: Path, say: Say, shown: str = "stack.yaml", token_file: Path | None = None,
    *, offline: bool = False,
) -> list[Outcome]:  # fmt: skip
    """What is here and what is missing; hubs are asked how large it is, unless offline. Nothing is written.

    Raises what ensure_models does, and StackError when the disk has no room for all that is missing together.
    """
    parts = list(parts_of(config, root))
    check_own(parts, root, shown)
    missing = [part for part in parts if not (part.folder / part.marker).is_file()]
    sized = [part for part in missing if not (offline and part.source.hub)]
    needed = sum(map(_Bring(config, root, say, token_file).size, sized))
    check_space(absolute(root, config.paths.state), needed, "the models that are missing")
    return [Outcome(part.name, "missing" if part in missing else "here", str(part.folder)) for part in parts]


class _Bring:
    """Brings models one by one. The token is read once, and only when a hub is asked."""

    def __init__(self, config: StackConfig, root: Path, say: Say, token_file: Path | None) -> None:
        self._config, self._root, self._say, self._token_file = config, root, say, token_file
        self._state = absolute(root, config.paths.state)
        self._access: tuple[str, str | None] | None = None

    def one(self, part: Part) -> Literal["fetched", "made", "here"]:
        """Bring one model or adapter into its folder, unless it is there."""
        folder = part.folder
        if part.source.toy:
            if not part.make_toy(folder):
                return "here"
            self._say(f"made the toy model in {folder}")
            return "made"
        if folder.is_dir():
            return "here"
        models_lock.read(self._lock)  # better now than after hours
        came, entry = self._from_hub(part.source, folder) if part.source.hub else self._from_archive(part)
        try:
            part.check(came)
        except ModelFilesError as error:
            raise StackError(
                f"model {part.name}: {error}. Every file came as its source has it: choose another"
                f" revision or model. What came is kept in {came}."
            ) from None
        models_lock.record(self._lock, str(folder.relative_to(self._state / "models")), entry)
        came.rename(folder)
        self._clear_away(folder)
        return "fetched"

    def size(self, part: Part) -> int:
        """Bytes that are still to come; of an archive, its own size. A toy is small."""
        if part.source.toy:
            return 0
        if part.source.archive is not None:
            return absolute(self._root, part.source.archive).stat().st_size
        from stack.models.hub_fetch import to_come  # noqa: PLC0415

        return to_come(part.source.hub or "", part.source.revision, *self._asked(), self._place(part.folder), self._say)

    @property
    def _lock(self) -> Path:
        return self._state / "models.lock"

    def _from_hub(self, source: Source, folder: Path) -> tuple[Path, dict[str, Any]]:
        # imported here: the hub's client costs half a second that every other command would pay
        from stack.models.hub_fetch import fetch  # noqa: PLC0415

        found, came = fetch(source.hub or "", source.revision, *self._asked(), self._place(folder), self._say)
        known = {file.path: file.sha256 for file in found.files if file.sha256}
        return came, {
            "source": "hub",
            "repository": found.repository,
            "endpoint": self._asked()[0],
            "commit": found.commit,
            "files": models_lock.listing(came, known),
        }

    def _asked(self) -> tuple[str, str | None]:
        if self._access is None:
            address = hub_access.endpoint(self._config.hub)
            self._access = address, hub_access.token(self._config.hub, self._root, address, self._token_file)
        return self._access

    @staticmethod
    def _place(folder: Path) -> Callable[[str], Path]:
        # a folder a commit: what was half fetched is never mixed with another commit's files
        return lambda commit: folder.with_name(f"{folder.name}.{commit}.partial")

    def _from_archive(self, part: Part) -> tuple[Path, dict[str, Any]]:
        archive = absolute(self._root, part.source.archive or "")
        self._say(f"reading {archive} and its checksum")
        contents = inspect(archive, part.source.sha256, part.marker)
        came = part.folder.with_name(f"{part.folder.name}.partial")
        meter = Meter(sum(contents.files.values()))
        side_by_side([partial(unpack, archive, contents, came, meter)], 1, meter, self._say)
        self._say(f"unpacked {meter.line()}")
        entry = {"source": "archive", "archive": str(archive), "sha256": contents.sha256}
        return came, {**entry, "files": models_lock.listing(came)}

    def _clear_away(self, folder: Path) -> None:
        # half fetched commits that were the newest once: nothing would ever ask for them again
        for left in folder.parent.glob(f"{folder.name}.*.partial"):
            self._say(f"removing {left}, an earlier fetch that was not finished")
            rmtree(left, ignore_errors=True)
