"""The files of one model as the planner needs them: its shape and its weights, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.config.fields import AUTO
from stack.config.load import problem_at
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.models.config_json import ModelFilesError, read_config
from stack.sizing.architecture import shape_of
from stack.sizing.errors import CannotPlanError
from stack.sizing.headers import Tensor, tensors_of
from stack.sizing.shapes import Shape
from stack.sizing.weights import Weights, weights_of


@dataclass(frozen=True)
class Known:
    """A model whose needs can be worked out."""

    shape: Shape
    weights: Weights


@dataclass(frozen=True)
class Unknown:
    """A model that cannot be planned, and why."""

    reason: str


def known(folder: Path, model: Model) -> Known | Unknown:
    """Read config.json and the headers of the weights. Raises ModelFilesError for files that are broken."""
    return known_of(read_config(folder), lambda: tensors_of(folder), str(folder / "config.json"), model)


def known_of(
    document: dict[str, Any], tensors: Callable[[], tuple[Tensor, ...] | None], where: str, model: Model
) -> Known | Unknown:
    """The same of a config.json and what the weights hold, wherever they are. where: its name in messages."""
    try:
        shape = shape_of(document, where, model.dtype, model.quantization)
        return Known(shape, weights_of(shape, tensors()))
    except CannotPlanError as error:
        return Unknown(str(error))


KEYS = (
    "tensor_parallel_size", "replicas", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
    "gpu_memory_utilization",
)  # fmt: skip


def auto_keys(model: Model) -> tuple[str, ...]:
    """The keys of a model that say ``auto``."""
    return tuple(key for key in KEYS if getattr(model, key) == AUTO)


def needs_of(config: StackConfig, folder_of: Callable[[Model], Path], shown: str) -> dict[str, Known | Unknown]:
    """What is known of the models whose files are here. Raises InputError where ``auto`` needs broken ones."""
    needs: dict[str, Known | Unknown] = {}
    problems: list[Problem] = []
    for model in config.models:
        folder = folder_of(model)
        if not folder.is_dir():
            continue
        try:
            needs[model.served_model_name] = known(folder, model)
        except ModelFilesError as error:
            # with every number set by hand the plan needs no more of the files than the engine itself will
            needs[model.served_model_name] = Unknown(str(error))
            if auto_keys(model):
                key = "source.path" if model.source.path is not None else "source"
                problems.append(problem_at(config, model, key, str(error)))
    if problems:
        raise InputError(shown, problems)
    return needs


def running_gpus(live: Path, host: str) -> dict[str, tuple[str, ...]]:
    """Engine -> uuids of the plan that runs on this host: what runs keeps its GPUs when another model comes or goes."""
    path = live / "plan.json"
    running = json.loads(path.read_text()) if path.is_file() else {}
    if running.get("host") != host:
        return {}
    return {engine["name"]: tuple(engine["gpus"]) for engine in running.get("engines", [])}
