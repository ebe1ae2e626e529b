"""What tests start from: configurations, hosts and plans in one line each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from stack.config.schema import StackConfig
from stack.errors import InputError
from stack.hardware import Gpu, Host
from stack.plan.fleet import Given, make_fleet
from stack.plan.make import make_plan
from stack.plan.types import Plan
from stacks import EIGHT_GPUS, ROOT

ROLES = (
    "alertmanager",
    "blackbox_exporter",
    "cadvisor",
    "dcgm_exporter",
    "fluent_bit",
    "grafana",
    "haproxy",
    "nginx",
    "node_exporter",
    "prometheus",
    "vllm",
)
IMAGES = {role: f"registry.example.org/{role}:1.2.3" for role in ROLES}
TOY: dict[str, Any] = {"served_model_name": "toy", "source": {"toy": True}}


def toy(**keys: Any) -> dict[str, Any]:
    """A model of a stack file, with these keys changed."""
    return {**copy.deepcopy(TOY), **keys}


def config(*models: dict[str, Any], **keys: Any) -> StackConfig:
    """A configuration of these models (one toy when there is none); device cpu unless told."""
    return StackConfig.model_validate({"device": "cpu", "models": list(models) or [toy()], **keys})


def plan(stack: StackConfig, host: Host | None = None, root: Path = ROOT) -> Plan:
    """The plan of a configuration, on eight GPUs or on none."""
    return make_plan(stack, host or (EIGHT_GPUS if stack.device == "cuda" else Host()), IMAGES, root)


def gpus(count: int) -> tuple[Gpu, ...]:
    """Constructed GPUs of one host."""
    return tuple(Gpu(uuid=f"GPU-{n:08x}", model="NVIDIA A100-SXM4-80GB", memory_mib=81920) for n in range(count))


def wheres(error: InputError) -> list[str]:
    """The key paths that an error names."""
    return [problem.where for problem in error.problems]


def host(name: str, number: int, count: int = 0, roles: list[str] | None = None, **keys: Any) -> Host:
    """A host of a fleet: 10.0.0.<number>, with so many GPUs."""
    cards = [
        {"uuid": f"GPU-{number:08x}-{n:04x}", "model": "NVIDIA A100-SXM4-80GB", "memory_mib": 81920}
        for n in range(count)
    ]
    return Host.model_validate(
        {"name": name, "address": f"10.0.0.{number}", "gpus": cards, "roles": roles or None, **keys}
    )


def fleet(stack: StackConfig, *hosts: Host, **keys: Any) -> dict[str, Plan]:
    """The plans of a fleet by host."""
    made = make_fleet(
        stack, hosts, Given(**{"images": IMAGES, "root": ROOT, "facts": {}, "files": {}, "rules": {}, **keys})
    )
    return {plan.host: plan for plan, _ in made}
