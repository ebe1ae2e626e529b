"""StackConfig + host -> Plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from stack.config.folders import state_dir
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.hardware import Host
from stack.models.config_json import ModelFacts
from stack.plan.engines import engines_and_pools
from stack.plan.gateway import gateway_part
from stack.plan.gpus import place_engines, too_few_gpus
from stack.plan.ports import published_ports
from stack.plan.types import Plan
from stack.plan.watching import scrape_targets, watch_part
from stack.sizing.files import auto_keys

# Parts that a stack does without where their image cannot be had.
OPTIONAL = frozenset({"fluent_bit", "grafana"})


def make_plan(
    config: StackConfig,
    host: Host,
    images: Mapping[str, str],
    root: Path,
    facts: Mapping[str, ModelFacts] | None = None,
    *,
    rules: Mapping[str, str] | None = None,
    images_built: bool = False,
    shown: str = "stack.yaml",
    previous: Mapping[str, tuple[str, ...]] | None = None,
    cordoned: frozenset[str] = frozenset(),
) -> Plan:
    """The plan of one host.

    images: role -> image reference. root: folder that relative paths start at. facts: served_model_name ->
    what the model's files say, as far as they are here. rules: name -> text of the user's own rule files. previous:
    engine -> uuids of the plan that runs, which it keeps; cordoned: uuids that get nothing. Raises InputError with
    every problem.
    """
    problems = check_models(enumerate(config.models), facts or {})
    if config.gateway.floating_address:
        what = "an address moves between hosts of a fleet: name them, with their roles, in a hosts file"
        problems.append(Problem("gateway.floating_address", what))
    for index, model in enumerate(config.models):
        if model.nnodes > 1:
            what = f"{model.nnodes} hosts for one replica: name the hosts of a fleet, with their roles, in a hosts file"
            problems.append(Problem(f"models[{index}].nnodes", what))
    placed = place_engines(config, host, previous, cordoned)
    if placed.missing:
        problems.append(too_few_gpus(config, host, cordoned))
    if problems:
        raise InputError(shown, problems)

    images = {role: image for role, image in sorted(images.items()) if role not in config.images_unwanted}
    parts = frozenset(images)
    engines, pools = engines_and_pools(config, host, placed.taken, images["vllm"], root, facts or {})
    return Plan(
        project=config.name,
        host=host.name,
        device=config.device,
        images=images,
        nginx_loads_modules=not images_built,
        engines=engines,
        pools=pools,
        published=published_ports(config, parts),
        targets=scrape_targets(config, engines, pools, host, parts),
        gateway=gateway_part(config),
        watch=watch_part(config, rules or {}),
        retention=config.observability.retention,
        state_dir=str(state_dir(config, root)),
        gpus_unused=tuple(gpu.uuid for gpu in placed.spare) if config.device == "cuda" else (),
        left_out=tuple(sorted(OPTIONAL - config.images_unwanted - parts)),
    )


def check_models(models: Iterable[tuple[int, Model]], facts: Mapping[str, ModelFacts]) -> list[Problem]:
    """What is wrong with models, each with its place in the stack file: numbers that are open, or against the files."""
    problems = []
    for index, model in models:
        for key in auto_keys(model):
            what = "auto was not resolved: the model's files are needed"
            problems.append(Problem(f"models[{index}].{key}", what))
        known = facts.get(model.served_model_name)
        size = model.tensor_parallel_size
        if known is None:
            continue
        heads = known.attention_heads
        if heads is not None and heads % size:
            fits = [str(n) for n in range(1, heads + 1) if heads % n == 0 and n <= 64]
            what = f"{size} does not divide the model's {heads} attention heads; possible: {', '.join(fits)}"
            problems.append(Problem(f"models[{index}].tensor_parallel_size", what))
    return problems
