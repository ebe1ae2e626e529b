#!/usr/bin/env python3
"""Which balancing finds the most prefix cache, on two real CPU engines with the toy model.

Least connections and prefix affinity are the gateway's own (models[].balancing, through TLS and njs); vllm-router
cache-aware is in front of the same engines, which have the --enable-scale-out that it needs. Each is given the same
three kinds of traffic by 8 workers, which never send anything twice: shared prefix (12 system prompts of 1500 tokens,
16 questions each), multi-turn (12 conversations of 16 turns), unshared (192 prompts of 1000 tokens).

cache: tokens of KV cache that one replica has. The hot prefixes of a kind are 18k to 24k tokens: 12288 holds about
  half of them (replicas that each keep other prefixes hold them all), 131072 holds everything.
n: good answers.
hit rate %: tokens found in the prefix cache by tokens asked for, over both engines
  (vllm:prefix_cache_hits / vllm:prefix_cache_queries, difference over the run).
TTFT p50, p99: milliseconds from sending a request to its first piece of text, as the client sees it.
busier %: share of those tokens that the busier of the two engines got; 50 is even.
load: the machine's 1-minute load average at the end of the row (its noise; hit rates do not depend on it, times do).
errors: everything that is not an answer with text. Each row is also told on stderr when it is there.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import requests
import yaml

from bench.measures import Noise, percentile
from bench.processes import vllm_router
from bench.traffic import KINDS, Endpoint, send
from stack import console
from stack.docker_host import address, connect, containers
from stack.errors import StackError
from stack.inputs import ROOT
from stack.secrets import engine_key
from stack_removal import remove_stack

STACK, STATE = Path(__file__).with_suffix(".yaml"), ROOT / ".test-state-b"
BLOCK = 128  # tokens, as the stack file says
SLOW_START_SECONDS = 12
ROUTER = "vllm-router cache-aware"
BALANCERS = ("least_connections", "prefix_affinity", ROUTER)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: make bench-balancing, or PYTHONPATH=scripts:tests tests/bench/balancing.py --cache 12288",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=int, nargs="+", default=[12288, 131072], metavar="TOKENS",
        help="KV cache of one replica; several: one after the other (default: 12288 131072)",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=1, help="of everything, each with new prompts (default: 1)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    noise = Noise()
    rows: list[dict[str, object]] = []
    try:
        for cache, balancer in product(arguments.cache, BALANCERS):
            with _serving(cache, balancer) as (endpoint, engines):
                for run, kind in product(range(1, arguments.runs + 1), KINDS):
                    console.say(f"{kind}, run {run} of {arguments.runs}: cache {cache}, {balancer}")
                    rows.append({"cache": cache, "traffic": kind, "balancing": balancer, "run": run,
                                 **_measure(kind, endpoint, engines)})  # fmt: skip
                    # told at once: a run that is cut off was not for nothing
                    console.say(" ".join(f"{name}={value}" for name, value in rows[-1].items()))
    finally:
        remove_stack(connect(), _project(), STATE)
    rows.sort(key=lambda row: (arguments.cache.index(row["cache"]), list(KINDS).index(str(row["traffic"]))))
    if arguments.json:
        console.print_json({"rows": rows, "noise": noise.so_far()})
    else:
        columns = {"cache": "cache", "traffic": "traffic", "balancing": "balancing", "run": "run", "n": "n",
                   "hit_percent": "hit rate %", "ttft_p50_ms": "TTFT p50 ms", "ttft_p99_ms": "p99 ms",
                   "busier_percent": "busier %", "errors": "errors", "load": "load"}  # fmt: skip
        print(console.table(list(columns.values()), [[str(row[key]) for key in columns] for row in rows]))
        print(f"\nnoise: {noise.so_far()}")
    return 0


@contextmanager
def _serving(cache: int, balancer: str) -> Iterator[tuple[Endpoint, list[str]]]:
    """(where to send, URLs of the engines). Engines go on running as long as only the balancing changes."""
    document = yaml.safe_load(STACK.read_text())
    model = document["models"][0]
    model["extra_args"] += ["--num-gpu-blocks-override", str(cache // BLOCK)]
    if balancer != ROUTER:
        model["balancing"] = balancer
    STATE.mkdir(exist_ok=True)
    path = STATE / "stack.yaml"
    path.write_text(yaml.safe_dump(document))
    engines = _engines() if balancer == ROUTER else []
    if not engines:
        with console.step(f"bringing the stack up: cache {cache}, {balancer}"):
            _up(path)
        time.sleep(SLOW_START_SECONDS)
        engines = _engines()
    name = model["served_model_name"]
    if balancer == ROUTER:
        with vllm_router(engines, "cache_aware", STATE) as url:
            yield Endpoint(url, name, {"authorization": f"Bearer {_engine_key()}"}), engines
        return
    state = STATE / "state/stacks" / document["name"]
    key = (state / "secrets/api-keys/default").read_text().strip()
    url = f"https://localhost:{document['gateway']['https_port']}"
    yield Endpoint(url, name, {"authorization": f"Bearer {key}"}, str(state / "gateway.crt")), engines


def _engine_key() -> str:
    """What engines ask for: the router hands the client's header on."""
    keys = engine_key.load(STATE / "state/stacks" / _project())
    assert keys
    return keys.sends


def _up(path: Path) -> None:
    # one replica at a time is replaced where the size of the cache changes, which nobody waits for here
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/up.py"), str(path)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "ALLOW_DOWNTIME": "1"},
    )  # fmt: skip
    if done.returncode:
        raise StackError(f"the stack did not come up:\n{done.stderr[-3000:]}")


def _project() -> str:
    return str(yaml.safe_load(STACK.read_text())["name"])


def _engines() -> list[str]:
    found = containers(connect(), _project())
    at = [
        address(container, "engines") for service, container in sorted(found.items()) if service.startswith("engine-")
    ]
    return [f"http://{each}:8000" for each in at if each]


def _measure(kind: str, endpoint: Endpoint, engines: Sequence[str]) -> dict[str, object]:
    before = [_counters(url) for url in engines]
    answers = send(kind, endpoint, secrets.token_hex(6))
    spent = [{name: now[name] - then[name] for name in now}
             for now, then in zip((_counters(url) for url in engines), before, strict=True)]  # fmt: skip
    queries = [each["queries"] for each in spent]
    for error in sorted(set(answers.errors)):
        console.say(f"error, {answers.errors.count(error)} times: {error}")
    return {
        "n": len(answers.ttft_ms),
        "hit_percent": round(100 * sum(each["hits"] for each in spent) / max(1.0, sum(queries)), 1),
        "ttft_p50_ms": round(percentile(answers.ttft_ms, 50), 1),
        "ttft_p99_ms": round(percentile(answers.ttft_ms, 99), 1),
        "busier_percent": round(100 * max(queries) / max(1.0, sum(queries))),
        "errors": len(answers.errors),
        "load": round(os.getloadavg()[0], 1),
    }


def _counters(url: str) -> Mapping[str, float]:
    """hits and queries: tokens since the engine began."""
    exposition = requests.get(f"{url}/metrics", timeout=20).text
    return {
        name: sum(float(value) for value in re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", exposition, re.M))
        for name in ("hits", "queries")
    }


if __name__ == "__main__":
    console.run(main)
