"""Which GPUs of the host each replica gets."""

from __future__ import annotations

from collections.abc import Mapping

from stack.config.schema import StackConfig
from stack.errors import Problem
from stack.hardware import Host
from stack.plan.engines import engine_name, pool_names
from stack.sizing.placement import Demand, Placement, place


def place_engines(
    config: StackConfig, host: Host, previous: Mapping[str, tuple[str, ...]] | None, cordoned: frozenset[str]
) -> Placement:
    """The GPUs of every engine, keeping those of the plan that runs; previous, cordoned: as make_plan has them."""
    if config.device == "cpu":
        return Placement({}, (), ())
    demands = [
        Demand(engine_name(pool, replica), model.gpus_of_a_host)
        for model, pool in zip(config.models, pool_names(config), strict=True)
        for replica in range(model.replicas)
    ]
    return place(demands, host, previous, cordoned)


def too_few_gpus(config: StackConfig, host: Host, cordoned: frozenset[str]) -> Problem:
    """What to say where a placement misses some."""
    needed = sum(model.replicas * model.tensor_parallel_size for model in config.models)
    asked = " + ".join(
        f"{model.served_model_name}: {model.replicas} x {model.tensor_parallel_size}" for model in config.models
    )
    out = sum(gpu.uuid in cordoned for gpu in host.gpus)
    have = f"{len(host.gpus) - out} free GPUs" + (f" and {out} cordoned" if out else "")
    return Problem(
        "models",
        f"{needed} needed ({asked}: replicas x tensor_parallel_size), but host {host.name!r} has {have};"
        " lower replicas or tensor_parallel_size, or use device: cpu",
    )
