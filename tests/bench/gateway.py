#!/usr/bin/env python3
"""What the gateway costs: latency added to a fast stub engine, and requests per second, beside its peers.

Every target answers the same POST (2 kB prompt) with the same fixed JSON. All run at once, one is measured at a time,
and the rounds go through all of them, so that a machine that changes its speed does so to everybody.

n: good answers in each of the three loads (closed / open / 32 connections), all rounds together.
added p50, added p99: milliseconds; the target's percentile less that of the stub alone in the same round; the median
  of the rounds, and in brackets the lowest and the highest round (the noise).
closed: 1 connection, the next request when the answer is there. open: 200 requests per second whatever happens,
  counted from the intended start; 'reached' is how many per second were answered.
req/s: answers per second at 32 connections, closed loop; client, stub and target share the cores.
errors: everything but a 200, in all three loads. Nothing is sent twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.gateway_parts import CHAT, MODEL, parts
from bench.load_client import Sample, Target, closed_loop, need_h2load, open_loop
from bench.measures import Noise, percentile
from bench.processes import litellm, vllm_router
from stack import console

RATE, CONNECTIONS, PROMPT_BYTES = 200, 32, 2048
DIRECT, HAPROXY, GATEWAY = "stub directly", "HAProxy alone", "the gateway"
ROUND_ROBIN, CACHE_AWARE, LITELLM = "vllm-router round robin", "vllm-router cache-aware", "LiteLLM proxy"
QUIET_SECONDS = 3
LOADS = ("closed", "open", "many")
# design goals, to compare with
GOAL_ADDED_MS, GOAL_TIMES_LITELLM = 0.5, 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: make bench-gateway, or PYTHONPATH=scripts:tests tests/bench/gateway.py --seconds 2 --rounds 1",
    )  # fmt: skip
    parser.add_argument("--seconds", type=int, default=5, help="of each load in each round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="through all targets (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    need_h2load()
    noise = Noise()
    with TemporaryDirectory(prefix="vllm-onprem-bench-") as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)  # the containers' users read their configuration in it
        samples = _measure(scratch, arguments.seconds, arguments.rounds)
    rows = [_row(name, loads, samples[DIRECT]) for name, loads in samples.items()]
    result = {"rows": rows, "goals": _goals(rows), "seconds": arguments.seconds, "rounds": arguments.rounds,
              "noise": {**noise.so_far(), "stub_p50_ms": _span(_p(samples[DIRECT]["closed"], 50))}}  # fmt: skip
    if arguments.json:
        console.print_json(result)
    else:
        _print(result)
    return 0


def _measure(scratch: Path, seconds: int, rounds: int) -> dict[str, dict[str, list[Sample]]]:
    """target -> load -> one sample a round."""
    body = scratch / "body.json"
    message = {"role": "user", "content": "tell me more " * (PROMPT_BYTES // 13)}
    body.write_text(json.dumps({"model": MODEL, "messages": [message], "max_tokens": 20}))
    with ExitStack() as stack:
        with console.step("starting the stub, HAProxy and the gateway"):
            ours = stack.enter_context(parts(scratch))
        engines = [ours.stub, ours.second]
        with console.step("starting vllm-router and LiteLLM"):
            routers = [stack.enter_context(vllm_router(engines, policy, scratch))
                       for policy in ("round_robin", "cache_aware")]  # fmt: skip
            proxy = stack.enter_context(litellm(engines, MODEL, "sk-bench", os.cpu_count() or 1, scratch))
        bearer = {"authorization": f"Bearer {ours.key}"}
        targets = [
            Target(DIRECT, ours.stub + CHAT, {}),
            Target(HAPROXY, ours.alone + CHAT, {}),
            Target(GATEWAY, ours.gateway + CHAT, bearer),
            Target(ROUND_ROBIN, routers[0] + CHAT, {}),
            Target(CACHE_AWARE, routers[1] + CHAT, {}),
            Target(LITELLM, proxy + CHAT, {"authorization": "Bearer sk-bench"}),
        ]
        for target in targets:
            console.say(f"warming up: {target.name}")
            closed_loop(target, body, CONNECTIONS, 1, scratch)
        samples: dict[str, dict[str, list[Sample]]] = {target.name: {load: [] for load in LOADS} for target in targets}
        for number in range(rounds):
            for target in targets:
                console.say(f"round {number + 1} of {rounds}: {target.name}")
                of = samples[target.name]
                of["closed"].append(closed_loop(target, body, 1, seconds, scratch))
                of["many"].append(closed_loop(target, body, CONNECTIONS, seconds, scratch))
                # last, and then quiet: a target that cannot keep the rate has a backlog, which must not count elsewhere
                of["open"].append(open_loop(target, body, RATE, seconds))
                time.sleep(QUIET_SECONDS)
    return samples


def _p(samples: Sequence[Sample], percent: float) -> list[float]:
    return [percentile(sample.milliseconds, percent) for sample in samples]


def _span(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
    }


def _row(name: str, loads: dict[str, list[Sample]], direct: dict[str, list[Sample]]) -> dict[str, object]:
    def added(load: str, percent: float) -> dict[str, float]:
        pairs = zip(_p(loads[load], percent), _p(direct[load], percent), strict=True)
        return _span([mine - stub for mine, stub in pairs])

    return {
        "target": name,
        **{f"{load}_n": sum(len(sample.milliseconds) for sample in loads[load]) for load in LOADS},
        **{f"{load}_added_p{percent}_ms": added(load, percent) for load in ("closed", "open") for percent in (50, 99)},
        **{f"{load}_p{percent}_ms": _span(_p(loads[load], percent)) for load in LOADS for percent in (50, 99)},
        "open_reached": _span([sample.per_second for sample in loads["open"]], 1),
        "per_second": _span([sample.per_second for sample in loads["many"]], 0),
        "errors": sum(sample.errors for load in LOADS for sample in loads[load]),
    }


def _goals(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    def median(target: str, key: str) -> float:
        value = next(row[key] for row in rows if row["target"] == target)
        assert isinstance(value, dict)
        return float(value["median"])

    ours, peer = (median(name, "closed_added_p50_ms") for name in (GATEWAY, CACHE_AWARE))
    peer_rate = median(LITELLM, "per_second")
    times = median(GATEWAY, "per_second") / peer_rate if peer_rate else None
    return [
        {
            "goal": f"adds less than {GOAL_ADDED_MS} ms at p50",
            "seen": f"{ours:.3f} ms",
            "met": ours < GOAL_ADDED_MS,
        },
        {
            "goal": f"at least {GOAL_TIMES_LITELLM} x LiteLLM's req/s",
            "seen": f"{times:.0f} x" if times else "LiteLLM answered nothing",
            "met": times >= GOAL_TIMES_LITELLM if times else None,
        },
        {
            "goal": "adds less at p50 than vllm-router cache-aware alone",
            "seen": f"{ours:.3f} against {peer:.3f} ms",
            "met": ours < peer,
        },
    ]


def _print(result: dict[str, object]) -> None:
    def cell(value: object, digits: int) -> str:
        if not isinstance(value, dict):
            return str(value)
        median, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "low", "high"))
        return f"{median} ({low} to {high})"

    rows, goals = result["rows"], result["goals"]
    assert isinstance(rows, list)
    assert isinstance(goals, list)
    columns = {"target": "target", "n": "n", "closed_added_p50_ms": "closed: added p50 ms",
               "closed_added_p99_ms": "added p99 ms", "open_added_p50_ms": f"open {RATE}/s: added p50 ms",
               "open_added_p99_ms": "added p99 ms", "open_reached": "reached /s",
               "per_second": f"req/s at {CONNECTIONS}", "errors": "errors"}  # fmt: skip
    digits = {"open_reached": 0, "per_second": 0}
    for row in rows:
        row["n"] = " / ".join(str(row[f"{load}_n"]) for load in LOADS)
    print(console.table(list(columns.values()), [[cell(row[key], digits.get(key, 2)) for key in columns]
                                                 for row in rows]))  # fmt: skip
    print(f"\n{result['rounds']} rounds of {result['seconds']} s each; noise: {json.dumps(result['noise'])}\n")
    verdicts = {True: "met", False: "NOT met", None: "not measured"}
    told = [[goal["goal"], goal["seen"], verdicts[goal["met"]]] for goal in goals]
    print(console.table(["goal", "seen", "in this run"], told))


if __name__ == "__main__":
    console.run(main)
