#!/usr/bin/env python3
"""Time and memory of sizing, plan and render: for 1 host, for 200 of 8 GPUs, and for 200 that are one fleet.

A benchmark: it asserts nothing.

Sizing is what `auto` costs: every open number of one model on one host, of five models on 200 hosts of two kinds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stack import console
from stack.config.schema import StackConfig
from stack.gateway_state import GatewayState
from stack.hardware import Gpu, Host, Role
from stack.images.choice import pulled_references
from stack.images.pins import load_pins
from stack.inputs import ROOT
from stack.plan.fleet import Given, make_fleet
from stack.plan.make import make_plan
from stack.render import render
from stack.sizing.files import needs_of
from stack.sizing.resolve import Resolver
from stack.tree import write_tree

FIXTURES = ROOT / "tests/models"
MODELS = ("llama-3-8b-awq", "qwen3-0.6b", "gemma-3-12b", "qwen2.5-7b", "gpt-oss-20b")
AUTO_KEYS = ("replicas", "tensor_parallel_size", "max_model_len", "max_num_seqs", "max_num_batched_tokens")
IMAGES = {role: f"{role}:1" for role in ("alertmanager", "haproxy", "nginx", "node_exporter", "prometheus", "vllm")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: tests/bench_plan.py --runs 5")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each size (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    results = [_measure(hosts, arguments.runs) for hosts in (1, 200)]
    results[0]["size"], results[1]["size"] = _sizing(1, 1, arguments.runs), _sizing(200, 5, arguments.runs)
    results.append(_measure(200, arguments.runs, one_fleet=True) | {"size": "in plan"})
    if arguments.json:
        console.print_json(results)
    else:
        head = [
            "hosts",
            "stacks",
            "GPUs",
            "runs",
            "sizing s (median)",
            "plan s (median)",
            "render s (median)",
            "write s (median)",
            "peak MB",
        ]
        keys = ("hosts", "stacks", "gpus", "runs", "size", "plan", "render", "write", "peak_mb")
        rows = [[str(result[key]) for key in keys] for result in results]
        print(console.table(head, rows))
    return 0


def _measure(count: int, runs: int, *, one_fleet: bool = False) -> dict[str, Any]:
    """Medians in seconds. one_fleet: the hosts are one stack, behind two gateways and watched by one Prometheus."""
    hosts = [
        Host(name=f"gpu-{number:03}", gpus=tuple(_gpu(number, place) for place in range(8))) for number in range(count)
    ]
    config = StackConfig.model_validate(
        {"models": [{"served_model_name": "llama", "source": {"hub": "org/model"}, "replicas": 8}]}
    )
    references = pulled_references(load_pins(ROOT).of("cuda"))
    if one_fleet:
        hosts = _fleet_of(hosts)
        config = config.model_copy(update={"models": (config.models[0].model_copy(update={"replicas": 8 * count}),)})
    given = Given(references, ROOT, {}, {}, {})
    times: dict[str, list[float]] = {"plan": [], "render": [], "write": []}
    for _ in range(runs):
        began = time.perf_counter()
        if one_fleet:
            plans = [plan for plan, _ in make_fleet(config, hosts, given)]
        else:
            plans = [make_plan(config, host, references, ROOT) for host in hosts]
        planned = time.perf_counter()
        trees = {plan.host: render(plan, GatewayState({"0" * 64: "default"}), ROOT) for plan in plans}
        rendered = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            for host, files in trees.items():
                write_tree(Path(folder) / host, files)
        for name, seconds in zip(
            times, (planned - began, rendered - planned, time.perf_counter() - rendered), strict=True
        ):
            times[name].append(seconds)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    stacks = 1 if one_fleet else count
    return {"hosts": len(hosts), "stacks": stacks, "gpus": 8 * count, "runs": runs, **medians, "peak_mb": peak_mb}


def _fleet_of(hosts: list[Host]) -> list[Host]:
    front: list[tuple[str, tuple[Role, ...]]] = [
        ("gateway-a", ("gateway",)), ("gateway-b", ("gateway",)), ("watch", ("observability",)),
    ]  # fmt: skip
    made = [Host(name=name, roles=roles, address=f"10.0.0.{n}") for n, (name, roles) in enumerate(front, start=1)]
    return made + [
        host.model_copy(update={"roles": ("engines",), "address": f"10.0.1.{n}"})
        for n, host in enumerate(hosts, start=1)
    ]


def _sizing(count: int, models: int, runs: int) -> float:
    """Median seconds to read the models' files and work out every ``auto``, after start-up."""
    with tempfile.TemporaryDirectory() as folder:
        entries = []
        for name in MODELS[:models]:
            path = Path(folder) / name
            path.mkdir()
            (path / "config.json").write_text(json.dumps(json.loads((FIXTURES / f"{name}.json").read_text())["config"]))
            entries.append(
                {"served_model_name": name, "source": {"path": str(path)}, **dict.fromkeys(AUTO_KEYS, "auto")}
            )
        config = StackConfig.model_validate({"models": entries})
        hosts = [
            Host(name=f"gpu-{n:03}", gpus=tuple(_gpu(n, place, h100=n % 2 == 1) for place in range(8)))
            for n in range(count)
        ]
        times = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            resolver = Resolver(config, needs_of(config, lambda model: Path(str(model.source.path)), "stack.yaml"))
            plans = [make_plan(resolver.host(host)[0], host, IMAGES, ROOT) for host in hosts]
            times.append(time.perf_counter() - began)
            assert len(plans) == count
        return round(statistics.median(times[1:]), 4)


def _gpu(host: int, place: int, *, h100: bool = False) -> Gpu:
    model, memory = ("NVIDIA H100 80GB HBM3", 81559) if h100 else ("NVIDIA A100-SXM4-80GB", 81920)
    return Gpu(uuid=f"GPU-{host:08x}-0000-0000-0000-{place:012x}", model=model, memory_mib=memory)


if __name__ == "__main__":
    sys.exit(main())
