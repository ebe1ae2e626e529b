"""What one engine may hold of its host's memory, and which ports a container may listen on."""

from __future__ import annotations

import json
import re

from stack.hardware import Host
from stack.models.config_json import ModelFacts
from stack.plan.limits import CPU_OVERHEAD_MIB, engine_memory_mib
from stack.plan.make import make_plan
from stack.plan.ports import listens
from stacks import EIGHT_GPUS, ROOT
from unit import given


def limit(device: str, host_mib: int | None = None, weights: int = 0, **keys: object) -> int | None:
    (model,) = given.config(given.toy(**keys)).models
    return engine_memory_mib(device, model, host_mib, weights)


def test_on_the_cpu_it_is_cache_weights_and_what_vllm_itself_needs() -> None:
    assert limit("cpu", cpu_kvcache_space=1) == CPU_OVERHEAD_MIB + 1024
    assert limit("cpu", cpu_kvcache_space=40, weights=2 * 2**30) == CPU_OVERHEAD_MIB + 40 * 1024 + 4 * 2048
    assert limit("cpu", host_mib=1024, cpu_kvcache_space=1) == CPU_OVERHEAD_MIB + 1024


def test_on_a_gpu_host_an_eighth_is_left_in_whole_gib() -> None:
    assert limit("cuda", host_mib=1024 * 1024) == 896 * 1024
    assert limit("cuda", host_mib=1024 * 1024 + 700) == 896 * 1024
    assert limit("cuda", host_mib=15_900) == 13 * 1024
    assert limit("cuda", host_mib=None) is None


def test_a_person_who_knows_better_says_so() -> None:
    for device in ("cpu", "cuda"):
        assert limit(device, host_mib=65536, memory_limit_gib=3) == 3072


def test_the_plan_knows_the_hosts_memory_and_the_models_weights() -> None:
    stack = given.config(given.toy(), device="cuda")
    host = EIGHT_GPUS.model_copy(update={"memory_mib": 2**20})
    assert [engine.memory_mib for engine in given.plan(stack, host).engines] == [896 * 1024]
    facts = {"toy": ModelFacts(None, None, weights_bytes=2**30)}
    on_cpu = make_plan(given.config(given.toy(cpu_kvcache_space=1)), Host(), given.IMAGES, ROOT, facts)
    assert [engine.memory_mib for engine in on_cpu.engines] == [CPU_OVERHEAD_MIB + 1024 + 4096]


def test_every_scraped_and_published_port_is_one_that_may_listen() -> None:
    plan = given.plan(given.config(given.toy(replicas=2)))
    planned = listens(plan)
    for target in plan.targets:
        name, _, port = re.sub(r"https?://|/.*", "", target.address).partition(":")
        assert int(port) in planned["prometheus" if name == "localhost" else name]
    assert {port.service for port in plan.published} <= planned.keys()
    assert json.dumps({name: sorted(ports) for name, ports in planned.items()})
