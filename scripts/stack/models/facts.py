"""What the models and adapters of a stack file are, as far as they are on this host; read from headers only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stack.config.folders import adapter_dirs, model_dir
from stack.config.load import problem_at
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.models.adapter_files import check_adapter, read_rank
from stack.models.config_json import ModelFacts, ModelFilesError, read_facts
from stack.models.files import check_model


def gather_facts(config: StackConfig, root: Path, shown: str) -> dict[str, ModelFacts]:
    """served_model_name -> facts of each model that is here. shown: the stack file's name in messages.

    Raises InputError where files are not there, damaged or not of one model, with file and key.
    """
    facts: dict[str, ModelFacts] = {}
    problems: list[Problem] = []
    for model in config.models:
        folder = model_dir(config, model, root)
        if model.source.path is None and not folder.is_dir():
            continue  # made or fetched by `make up`, which looks again
        try:
            facts[model.served_model_name] = read_facts(folder)
            check_model(folder)
        except ModelFilesError as error:
            key = "source.path" if model.source.path is not None else "source"
            problems.append(problem_at(config, model, key, str(error)))
    problems += [problem for model in config.models for problem in _adapter_problems(config, model, root)]
    if problems:
        raise InputError(shown, problems)
    return facts


def _adapter_problems(config: StackConfig, model: Model, root: Path) -> Iterator[Problem]:
    folders = adapter_dirs(config, model, root).values()
    for place, (adapter, folder) in enumerate(zip(model.lora_adapters, folders, strict=True)):
        if adapter.source.path is None and not folder.is_dir():
            continue
        try:
            check_adapter(folder)
        except ModelFilesError as error:
            yield problem_at(config, model, f"lora_adapters[{place}].source", str(error))
            continue
        rank = read_rank(folder)
        if rank > model.max_lora_rank:
            what = f"{model.max_lora_rank}, and adapter {adapter.name} is of rank {rank}: set at least that"
            yield problem_at(config, model, "max_lora_rank", what)
