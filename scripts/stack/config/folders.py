"""Where on the host the paths of a stack file are."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.config.source import Source


def absolute(root: Path, path: str) -> Path:
    """A path of stack.yaml on the host: relative ones start at root."""
    return Path(PurePosixPath(root) / path)


def state_dir(config: StackConfig, root: Path) -> Path:
    """What one stack keeps on its host: secrets, certificate, caches, and the tree it runs from (`live`)."""
    return absolute(root, config.paths.state) / "stacks" / config.name


def model_dir(config: StackConfig, model: Model, root: Path) -> Path:
    """Where a model's files are (path), or are put before the engines start (hub, archive, toy)."""
    return source_dir(config, model.source, root, "toy-llama")


def adapter_dirs(config: StackConfig, model: Model, root: Path) -> dict[str, Path]:
    """Name -> folder of a model's LoRA adapters, in the order that the engine mounts them."""
    return {each.name: source_dir(config, each.source, root, "toy-lora") for each in model.lora_adapters}


def source_dir(config: StackConfig, source: Source, root: Path, toy: str) -> Path:
    """Folder of what a source names. toy: its name for what is made here."""
    models = absolute(root, config.paths.state) / "models"
    if source.path is not None:
        return absolute(root, source.path)
    if source.hub is not None:
        return models / source.hub.replace("/", "--") / (source.revision or "unpinned")
    if source.archive is not None:
        name = str(absolute(root, source.archive)).strip("/").replace("/", "--")
        return models / "archives" / name / (source.sha256 or "unpinned")
    return models / toy
