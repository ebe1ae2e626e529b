"""The engines of a host and the pools that they make up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from stack.config.folders import adapter_dirs, model_dir, state_dir
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.hardware import Gpu, Host
from stack.models.config_json import ModelFacts
from stack.plan import vllm_args
from stack.plan.fleet_types import Part
from stack.plan.limits import engine_memory_mib
from stack.plan.types import Engine, HealthCheck, Pool

# Docker kills after the stop grace: vLLM's own shutdown needs to be over before.
STOP_GRACE_MARGIN_SECONDS = 15
# NCCL's and vLLM's shared-memory rings for a few GPUs; a ceiling, not an allocation.
SHM_MIB, SHM_MIB_PER_GPU = 1024, 2048
# A frozen engine is killed after at most 3 s to the run that still sees its last step + 4 s that this proves it + 3 s
# to the next run + 3 x 10 s + 5 s for its evidence = 45 s, and 1 s in which Docker starts two runs; HAProxy's own check
# needs up to 12 s more to see an engine go that gets no requests. One run takes 81 s if every answer is just in time.
HEALTH_CHECK = HealthCheck(interval=3, timeout=90, retries=3)


def engines_and_pools(
    config: StackConfig,
    host: Host,
    taken: Mapping[str, tuple[Gpu, ...]],
    image: str,
    root: Path,
    facts: Mapping[str, ModelFacts],
) -> tuple[tuple[Engine, ...], tuple[Pool, ...]]:
    """Every replica, and a pool for each model. taken: engine -> its GPUs. root: where relative paths start."""
    engines: list[Engine] = []
    pools: list[Pool] = []
    for model, pool in zip(config.models, pool_names(config), strict=True):
        memory = memory_of(config, model, host, facts)
        names = []
        for replica in range(model.replicas):
            gpus = tuple(gpu.uuid for gpu in taken.get(engine_name(pool, replica), ()))
            engines.append(make_engine(config, model, pool, replica, gpus, memory, image, root))
            names.append(engines[-1].name)
        pools.append(make_pool(model, pool, names))
    return tuple(engines), tuple(pools)


def memory_of(config: StackConfig, model: Model, host: Host, facts: Mapping[str, ModelFacts]) -> int | None:
    """MiB that one engine of this model may hold on this host."""
    known = facts.get(model.served_model_name)
    return engine_memory_mib(config.device, model, host.memory_mib, known.weights_bytes if known else 0)


def make_pool(model: Model, name: str, engines: Sequence[str]) -> Pool:
    """The pool of these engines."""
    return Pool(
        name, model.served_model_name, tuple(engines),
        model.balancing, model.max_num_seqs, model.max_queue, model.queue_timeout,
        model.task, tuple(adapter.name for adapter in model.lora_adapters), model.max_unavailable,
    )  # fmt: skip


def engine_name(pool: str, replica: int) -> str:
    """Name of a replica's container."""
    return f"engine-{pool}-{replica}"


def part_name(engine: str, rank: int) -> str:
    """Name of a part's container, where a replica spans hosts. No pool's name has a dot; rank 0 has the replica's."""
    return f"{engine}.{rank}" if rank else engine


def leader_of(part: str) -> str:
    """The replica that a container is a part of, which is the name of the part that leads."""
    return part.split(".", maxsplit=1)[0]


def pool_names(config: StackConfig) -> list[str]:
    """A name for each model's pool that DNS and HAProxy take, in the order of the models."""
    names: list[str] = []
    for model in config.models:
        slug = re.sub(r"[^a-z0-9]+", "-", model.served_model_name.lower()).strip("-")[:40].strip("-")
        # two names may differ only in characters that DNS does not know
        free = (name for number in count() if (name := f"{slug}-{number}" if number else slug) not in names)
        names.append(next(free))
    return names


def make_engine(
    config: StackConfig,
    model: Model,
    pool: str,
    replica: int,
    gpus: Sequence[str],
    memory: int | None,
    image: str,
    root: Path,
    part: Part | None = None,
) -> Engine:
    """One replica, or a part of one. config: what its host serves. gpus: uuids. memory: MiB."""
    name, state = engine_name(pool, replica), state_dir(config, root)
    name = part_name(name, part.rank) if part else name
    return Engine(
        name=name,
        served_model_name=model.served_model_name,
        replica=replica,
        image=image,
        entrypoint=vllm_args.FOLLOWER_ENTRYPOINT if part and part.rank else vllm_args.ENTRYPOINT,
        argv=vllm_args.argv(config, model, part),
        environment={
            **vllm_args.environment(config, model, part),
            "ENGINE_NAME": name,
            "SERVED_MODEL_NAME": model.served_model_name,
            "TASK": model.task,
        },
        gpus=tuple(gpus),
        model_dir=str(model_dir(config, model, root)),
        cache_dir=str(state / "cache" / name),
        evidence_dir=str(state / "evidence" / name),
        shm_mib=SHM_MIB + (SHM_MIB_PER_GPU * len(gpus) if len(gpus) > 1 else 0),
        memory_mib=memory,
        cpu_limit=model.cpu_limit,
        health_check=HEALTH_CHECK,
        startup_timeout=model.startup_timeout,
        stop_grace=model.shutdown_timeout + STOP_GRACE_MARGIN_SECONDS,
        task=model.task,
        adapter_dirs=tuple(str(folder) for folder in adapter_dirs(config, model, root).values()),
    )
