#!/usr/bin/env python3
"""Time and memory of plan and render, for 1 host and for 200 hosts of 8 GPUs. A benchmark: it asserts nothing."""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from stack import console
from stack.config import StackConfig
from stack.gateway_state import GatewayState
from stack.hardware import Gpu, Host
from stack.images.choice import pulled_references
from stack.images.pins import load_pins
from stack.inputs import ROOT
from stack.plan import make_plan
from stack.render import render
from stack.tree import write_tree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: tests/bench_plan.py --runs 5")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each size (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    results = [_measure(hosts, arguments.runs) for hosts in (1, 200)]
    if arguments.json:
        console.print_json(results)
    else:
        head = ["hosts", "GPUs", "runs", "plan s (median)", "render s (median)", "write s (median)", "peak MB"]
        rows = [[str(result[key]) for key in ("hosts", "gpus", "runs", "plan", "render", "write", "peak_mb")]
                for result in results]  # fmt: skip
        print(console.table(head, rows))
    return 0


def _measure(count: int, runs: int) -> dict[str, float | int]:
    hosts = [
        Host(name=f"gpu-{number:03}", gpus=tuple(_gpu(number, place) for place in range(8))) for number in range(count)
    ]
    config = StackConfig.model_validate(
        {"models": [{"served_model_name": "llama", "source": {"hub": "org/model"}, "replicas": 8}]}
    )
    references = pulled_references(load_pins(ROOT).of("cuda"))
    times: dict[str, list[float]] = {"plan": [], "render": [], "write": []}
    for _ in range(runs):
        began = time.perf_counter()
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
    return {"hosts": count, "gpus": 8 * count, "runs": runs, **medians, "peak_mb": peak_mb}


def _gpu(host: int, place: int) -> Gpu:
    return Gpu(uuid=f"GPU-{host:08x}-0000-0000-0000-{place:012x}", model="NVIDIA A100-SXM4-80GB", memory_mib=81920)


if __name__ == "__main__":
    sys.exit(main())
