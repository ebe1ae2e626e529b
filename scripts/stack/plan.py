"""StackConfig + host -> Plan. Pure: the same input gives the same plan, and nothing is touched.

A Plan is everything one host runs: which replica on which GPUs, every flag, port, image and scrape target.
Templates only loop over it and print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from stack import vllm_args
from stack.config import AUTO, Model, Source, StackConfig, problem_at
from stack.errors import InputError, Problem
from stack.hardware import Gpu, Host
from stack.limits import engine_memory_mib
from stack.model import ModelFacts
from stack.sizing.placement import Demand, Placement, place

# Docker kills after the stop grace: vLLM's own shutdown needs to be over before.
STOP_GRACE_MARGIN_SECONDS = 15
# NCCL's and vLLM's shared-memory rings for a few GPUs; a ceiling, not an allocation.
SHM_MIB, SHM_MIB_PER_GPU = 1024, 2048


@dataclass(frozen=True)
class HealthCheck:
    """How Docker runs compose/engine/check.py: in seconds, and after how many failures it says unhealthy."""

    interval: int
    timeout: int
    retries: int


# A frozen engine is killed after at most 3 x (3 s between two runs + 0.5 s + 10 s) + 5 s for its evidence = 46 s;
# HAProxy's own check needs up to 12 s more to see an engine go that gets no requests. One run takes at most 37 s.
HEALTH_CHECK = HealthCheck(interval=3, timeout=45, retries=3)


@dataclass(frozen=True)
class Engine:
    """One vLLM process group in one container. Times in seconds, memory in MiB, paths on the host.

    memory_mib: what it may hold of the host's memory, None where no limit can be told (limits.py).
    """

    name: str
    served_model_name: str
    replica: int
    image: str
    entrypoint: tuple[str, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    gpus: tuple[str, ...]
    model_dir: str
    cache_dir: str
    evidence_dir: str
    shm_mib: int
    memory_mib: int | None
    health_check: HealthCheck
    startup_timeout: int
    stop_grace: int
    task: str = "generate"
    adapter_dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """The replicas of one model: one HAProxy backend.

    max_num_seqs: requests that one replica works on; max_queue: how many more wait, for queue_timeout seconds.
    adapters: more names that clients may ask for, answered by the same replicas.
    """

    name: str
    served_model_name: str
    engines: tuple[str, ...]
    balancing: str
    max_num_seqs: int
    max_queue: int
    queue_timeout: int
    task: str = "generate"
    adapters: tuple[str, ...] = ()

    @property
    def has_affinity(self) -> bool:
        """Whether a conversation has a replica of its own; embeddings leave nothing in a prefix cache."""
        return self.balancing == "prefix_affinity" and self.task == "generate"


@dataclass(frozen=True)
class Published:
    """One port that a container publishes on the host."""

    service: str
    address: str
    port: int
    key: str


@dataclass(frozen=True)
class Target:
    """One scrape target of Prometheus."""

    job: str
    address: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """Everything one host runs. cordoned: replicas that are not run, as their GPU is not to be used (cordons.py)."""

    project: str
    host: str
    device: str
    images: Mapping[str, str]
    nginx_loads_modules: bool
    engines: tuple[Engine, ...]
    pools: tuple[Pool, ...]
    published: tuple[Published, ...]
    targets: tuple[Target, ...]
    gateway: Mapping[str, Any]
    retention: str
    state_dir: str
    gpus_unused: tuple[str, ...]
    cordoned: tuple[Engine, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as `plan.json` holds it."""
        return asdict(self)


def make_plan(
    config: StackConfig,
    host: Host,
    images: Mapping[str, str],
    root: Path,
    facts: Mapping[str, ModelFacts] | None = None,
    *,
    images_built: bool = False,
    shown: str = "stack.yaml",
    previous: Mapping[str, tuple[str, ...]] | None = None,
    cordoned: frozenset[str] = frozenset(),
) -> Plan:
    """The plan of one host.

    images: role -> image reference. root: folder that relative paths start at. facts: served_model_name ->
    what the model's files say, as far as they are here. previous: engine -> uuids of the plan that runs, which it
    keeps; cordoned: uuids that get nothing. Raises InputError with every problem.
    """
    problems = list(_check_models(config, facts or {}))
    placement = _placement(config, host, previous, cordoned)
    if placement.missing:
        problems.append(_too_few_gpus(config, host, cordoned))
    if problems:
        raise InputError(shown, problems)

    state = state_dir(config, root)
    engines: list[Engine] = []
    pools: list[Pool] = []
    for model, pool in zip(config.models, _pool_names(config), strict=True):
        names = []
        for replica in range(model.replicas):
            taken = list(placement.taken.get(_engine_name(pool, replica), ()))
            known = (facts or {}).get(model.served_model_name)
            memory = engine_memory_mib(config.device, model, host.memory_mib, known.weights_bytes if known else 0)
            engines.append(_engine(config, model, pool, replica, taken, memory, images["vllm"], state, root))
            names.append(engines[-1].name)
        pools.append(
            Pool(
                pool, model.served_model_name, tuple(names),
                model.balancing, model.max_num_seqs, model.max_queue, model.queue_timeout,
                model.task, tuple(adapter.name for adapter in model.lora_adapters),
            )
        )  # fmt: skip

    return Plan(
        project=config.name,
        host=host.name,
        device=config.device,
        images=dict(sorted(images.items())),
        nginx_loads_modules=not images_built,
        engines=tuple(engines),
        pools=tuple(pools),
        published=_published(config),
        targets=_targets(engines, host),
        gateway=_gateway(config),
        retention=config.observability.retention,
        state_dir=str(state),
        gpus_unused=tuple(gpu.uuid for gpu in placement.spare) if config.device == "cuda" else (),
    )


def plan_from(document: Mapping[str, Any]) -> Plan:
    """The plan that as_dict() wrote, such as the plan.json of an applied tree."""
    parts: dict[str, type[Any]] = {
        "engines": Engine,
        "cordoned": Engine,
        "pools": Pool,
        "published": Published,
        "targets": Target,
    }
    fields: dict[str, Any] = {
        key: tuple(parts[key](**{name: _frozen(item) for name, item in entry.items()}) for entry in value)
        if key in parts
        else _frozen(value)
        for key, value in document.items()
    }
    return Plan(**fields)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def listens(plan: Plan) -> dict[str, frozenset[int]]:
    """service -> every TCP port on which its container may be spoken to, published or not."""
    haproxy = frozenset({8080, 8081, 8405})  # requests, requests again, metrics
    parts = {
        "nginx": frozenset({8443, 8406}),  # clients, metrics
        "haproxy": haproxy,
        "haproxy-standby": haproxy,
        "prometheus": frozenset({9090}),
        "alertmanager": frozenset({9093}),
        "node-exporter": frozenset({9100}),
    }
    return parts | {engine.name: frozenset({vllm_args.PORT}) for engine in plan.engines}


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


def _check_models(config: StackConfig, facts: Mapping[str, ModelFacts]) -> list[Problem]:
    problems = []
    for model in config.models:
        for key in ("replicas", "tensor_parallel_size", "max_model_len", "max_num_seqs"):
            if getattr(model, key) == AUTO:
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


def _placement(
    config: StackConfig, host: Host, previous: Mapping[str, tuple[str, ...]] | None, cordoned: frozenset[str]
) -> Placement:
    if config.device == "cpu":
        return Placement({}, (), ())
    demands = [
        Demand(_engine_name(pool, replica), model.tensor_parallel_size)
        for model, pool in zip(config.models, _pool_names(config), strict=True)
        for replica in range(model.replicas)
    ]
    return place(demands, host, previous, cordoned)


def _engine_name(pool: str, replica: int) -> str:
    return f"engine-{pool}-{replica}"


def _too_few_gpus(config: StackConfig, host: Host, cordoned: frozenset[str]) -> Problem:
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


def _pool_names(config: StackConfig) -> list[str]:
    names: list[str] = []
    for model in config.models:
        slug = re.sub(r"[^a-z0-9]+", "-", model.served_model_name.lower()).strip("-")[:40].strip("-")
        # two names may differ only in characters that DNS does not know
        free = (name for number in count() if (name := f"{slug}-{number}" if number else slug) not in names)
        names.append(next(free))
    return names


def _engine(
    config: StackConfig,
    model: Model,
    pool: str,
    replica: int,
    gpus: list[Gpu],
    memory: int | None,
    image: str,
    state: Path,
    root: Path,
) -> Engine:
    name = _engine_name(pool, replica)
    return Engine(
        name=name,
        served_model_name=model.served_model_name,
        replica=replica,
        image=image,
        entrypoint=vllm_args.ENTRYPOINT,
        argv=vllm_args.argv(config, model),
        environment={
            **vllm_args.environment(config, model),
            "ENGINE_NAME": name,
            "SERVED_MODEL_NAME": model.served_model_name,
            "TASK": model.task,
        },
        gpus=tuple(gpu.uuid for gpu in gpus),
        model_dir=str(model_dir(config, model, root)),
        cache_dir=str(state / "cache" / name),
        evidence_dir=str(state / "evidence" / name),
        shm_mib=SHM_MIB + (SHM_MIB_PER_GPU * len(gpus) if len(gpus) > 1 else 0),
        memory_mib=memory,
        health_check=HEALTH_CHECK,
        startup_timeout=model.startup_timeout,
        stop_grace=model.shutdown_timeout + STOP_GRACE_MARGIN_SECONDS,
        task=model.task,
        adapter_dirs=tuple(str(folder) for folder in adapter_dirs(config, model, root).values()),
    )


def _published(config: StackConfig) -> tuple[Published, ...]:
    gateway, watch = config.gateway, config.observability
    return (
        Published("nginx", gateway.listen, gateway.https_port, "gateway.https_port"),
        Published("prometheus", "127.0.0.1", watch.prometheus_port, "observability.prometheus_port"),
        Published("alertmanager", "127.0.0.1", watch.alertmanager_port, "observability.alertmanager_port"),
    )


def engine_target(engine: Engine, host: str) -> Target:
    """What Prometheus scrapes of an engine."""
    labels = {"host": host, "model": engine.served_model_name, "replica": str(engine.replica)}
    return Target("vllm", f"{engine.name}:{vllm_args.PORT}", labels)


def _targets(engines: list[Engine], host: Host) -> tuple[Target, ...]:
    vllm = [engine_target(engine, host.name) for engine in engines]
    here = {"host": host.name}
    parts = {
        "alertmanager": ("alertmanager:9093",),
        "haproxy": ("haproxy:8405", "haproxy-standby:8405"),
        "nginx": ("nginx:8406",),
        "node": ("node-exporter:9100",),
        "prometheus": ("localhost:9090",),
    }
    return (*vllm, *(Target(job, address, here) for job, addresses in parts.items() for address in addresses))


def _gateway(config: StackConfig) -> dict[str, Any]:
    gateway = config.gateway
    return {
        "server_name": gateway.server_name,
        "https_port": gateway.https_port,
        "api_keys": tuple(client.name for client in gateway.api_keys),
        "clients": {client.name: client.model_dump(exclude={"name"}) for client in gateway.api_keys},
        "requests_per_second": gateway.requests_per_second,
        "concurrency": gateway.concurrency,
        "max_body_size_mib": gateway.max_body_size_mib,
        "request_timeout": gateway.request_timeout,
        "tls": gateway.tls.model_dump() if gateway.tls else None,
    }
