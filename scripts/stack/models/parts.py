"""What a stack file wants brought: each model, and each adapter of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.config.folders import absolute, adapter_dirs, model_dir
from stack.config.schema import StackConfig
from stack.config.source import Source
from stack.errors import InputError, Problem
from stack.models.adapter_files import CONFIG, check_adapter
from stack.models.config_json import ModelFilesError
from stack.models.files import check_model


@dataclass(frozen=True)
class Part:
    """One thing to bring: a model, or an adapter of one. where: key path of its source."""

    name: str
    where: str
    source: Source
    folder: Path
    marker: str  # the file that every such folder holds
    check: Callable[[Path], None]
    make_toy: Callable[[Path], bool]


def parts_of(config: StackConfig, root: Path) -> Iterator[Part]:
    """Every model and adapter of a stack file."""
    for place, model in enumerate(config.models):
        where, folder = f"models[{place}].source", model_dir(config, model, root)
        yield Part(model.served_model_name, where, model.source, folder, "config.json", check_model, _make_toy_model)
        folders = adapter_dirs(config, model, root)
        for number, adapter in enumerate(model.lora_adapters):
            where = f"models[{place}].lora_adapters[{number}].source"
            folder = folders[adapter.name]
            yield Part(adapter.name, where, adapter.source, folder, CONFIG, check_adapter, _make_toy_adapter)


# Imported where they are used: they need numpy, which would cost every command more time than reading its files.
def _make_toy_model(folder: Path) -> bool:
    from stack.models.toy import make_toy_model  # noqa: PLC0415

    return make_toy_model(folder)


def _make_toy_adapter(folder: Path) -> bool:
    from stack.models.toy import make_toy_adapter  # noqa: PLC0415

    return make_toy_adapter(folder)


def check_own(parts: Iterable[Part], root: Path, shown: str) -> None:
    """Folders and archives of the user's own. Raises InputError with all that is wrong."""
    problems: list[Problem] = []
    for part in parts:
        key = "path" if part.source.path else "archive"
        try:
            if part.source.path is not None:
                part.check(part.folder)
            elif part.source.archive is not None and not part.folder.is_dir():
                _check_archive(absolute(root, part.source.archive))
        except ModelFilesError as error:
            problems.append(Problem(f"{part.where}.{key}", str(error)))
    if problems:
        raise InputError(shown, problems)


def _check_archive(archive: Path) -> None:
    try:
        with archive.open("rb"):
            pass
    except OSError as error:
        raise ModelFilesError(f"{archive}: {error.strerror}; a tar archive on this host is needed") from None
