"""StackConfig + host -> Plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stack.config.folders import state_dir
from stack.config.load import problem_at
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
    problems = list(_check_models(config, facts or {}))
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


def _check_models(config: StackConfig, facts: Mapping[str, ModelFacts]) -> list[Problem]:
    problems = []
    for model in config.models:
        for key in auto_keys(model):
            problems.append(problem_at(config, model, key, "auto was not resolved: the model's files are needed"))
        known = facts.get(model.served_model_name)
        size = model.tensor_parallel_size
        if known is None:
            continue
        heads = known.attention_heads
        if heads is not None and heads % size:
            fits = [str(n) for n in range(1, heads + 1) if heads % n == 0 and n <= 64]
            what = f"{size} does not divide the model's {heads} attention heads; possible: {', '.join(fits)}"
            problems.append(problem_at(config, model, "tensor_parallel_size", what))
    return problems
