"""What a plan consists of: which replica on which GPUs, every flag, port, image and scrape target of one host.

Templates only loop over it and print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stack.plan.fleet_types import Fleet, Opening, fleet_from


@dataclass(frozen=True)
class HealthCheck:
    """How Docker runs compose/engine/check.py: in seconds, and after how many failures it says unhealthy."""

    interval: int
    timeout: int
    retries: int


@dataclass(frozen=True)
class Engine:
    """One vLLM process group in one container. Times in seconds, memory in MiB, paths on the host.

    memory_mib: what it may hold of the host's memory, None where no limit can be told (limits.py).
    cpu_limit: how many of the host's cores it may keep busy, None for all.
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
    cpu_limit: float | None
    health_check: HealthCheck
    startup_timeout: int
    stop_grace: int
    task: str = "generate"
    adapter_dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """The replicas of one model: one HAProxy backend.

    max_num_seqs: requests that one replica works on; max_queue: how many more wait, for queue_timeout seconds.
    adapters: more names that clients may ask for, answered by the same replicas. max_unavailable: replicas that a
    change may take away at once.
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
    max_unavailable: int = 1

    @property
    def least(self) -> int:
        """Replicas that serve whatever is changed: the capacity that a deploy never goes below."""
        return max(1, len(self.engines) - self.max_unavailable)

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
    """Everything one host runs.

    cordoned: replicas that are not run, as their GPU is not to be used (cordons.py). left_out: parts that the stack
    file wants and that cannot be had here, as their image is not among those that the stack has. fleet: where this is
    one of several hosts of the stack. Its pools are then those of the whole fleet on hosts of the gateway or of
    Prometheus, and elsewhere those of its own engines.
    """

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
    watch: Mapping[str, Any]
    retention: str
    state_dir: str
    gpus_unused: tuple[str, ...]
    cordoned: tuple[Engine, ...] = ()
    left_out: tuple[str, ...] = ()
    fleet: Fleet | None = None

    @property
    def ports(self) -> tuple[Published | Opening, ...]:
        """Every port that its containers have on the host."""
        return (*self.published, *(self.fleet.openings if self.fleet else ()))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as `plan.json` holds it; a host for itself has no `fleet`."""
        told = asdict(self)
        return told if self.fleet else {key: value for key, value in told.items() if key != "fleet"}


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
        if key != "fleet"
    }
    return Plan(**fields, fleet=fleet_from(document["fleet"]) if document.get("fleet") else None)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
