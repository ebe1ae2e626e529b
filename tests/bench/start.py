#!/usr/bin/env python3
"""How long a stack takes from `make up` to its first completion: first start against second, on a real CPU engine.

First: no compile cache. Second: the stack was stopped and its containers removed; compile cache and model store are
folders of the host and still there. Each with torch.compile and without (--enforce-eager). Images and keys are there
before each; one engine with the toy model.

vLLM: seconds from the engine's container start to vLLM's own "Application startup complete".
first completion: seconds from the command's start until the gateway answers a client who asks ten times a second.
after vLLM: the part of it that comes after vLLM's start-up; at most 10 s is the goal.
make up: seconds until the command ends, its smoke test passed.
n: starts of that kind; shown is the median, and lowest to highest where there are several.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from statistics import median

import requests
import yaml

from bench.measures import Noise
from stack import console
from stack.adjust import applied_plan
from stack.docker_host import connect, containers
from stack.errors import StackError
from stack.gateway_client import Refused
from stack.inputs import ROOT
from stack.lifecycle import local_gateway
from stack_removal import remove_stack

STACK, STATE = Path(__file__).with_suffix(".yaml"), ROOT / ".test-state-start"
VARIANTS = {"compiled": [], "eager": ["--enforce-eager"]}
READY = "Application startup complete"
# What the article says its cold start takes; on eight A100s, with a model of 8B parameters.
CLAIM_SECONDS = 2.1
GOAL_SECONDS = 10


@dataclass(frozen=True)
class Start:
    """Seconds of one start; the module's text says of what."""

    variant: str
    start: str
    vllm: float
    first_completion: float
    after_vllm: float
    make_up: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: make bench-start, or make bench-start ARGS='--runs 3 --variants eager'",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=1, help="first and second starts of each variant (default: 1)")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    noise, starts = Noise(), []
    try:
        _up(_stack_file("eager"))  # images, keys, certificate, model: none of them is what is measured
        for variant, _ in product(arguments.variants, range(arguments.runs)):
            path = _stack_file(variant)
            _down(path)
            shutil.rmtree(_stack_state() / "cache")
            for start in ("first", "second"):
                starts.append(_measure(path, variant, start))
                console.say(str(starts[-1]))
                _down(path)
    finally:
        remove_stack(connect(), _project(), STATE)
    rows = [_row(starts, variant, start) for variant in arguments.variants for start in ("first", "second")]
    if arguments.json:
        console.print_json({"starts": [asdict(start) for start in starts], "noise": noise.so_far()})
        return 0
    print(console.table(["engine", "start", "n", "vLLM s", "first completion s", "after vLLM s", "make up s"], rows))
    print(f"\nThe article claims {CLAIM_SECONDS} s for a cold start. Goal: at most {GOAL_SECONDS} s after vLLM.")
    print(f"noise: {noise.so_far()}")
    return 0


def _row(starts: Sequence[Start], variant: str, start: str) -> list[str]:
    chosen = [asdict(each) for each in starts if (each.variant, each.start) == (variant, start)]
    columns = ("vllm", "first_completion", "after_vllm", "make_up")
    return [variant, start, str(len(chosen)), *(_range([each[name] for each in chosen]) for name in columns)]


def _range(values: Sequence[float]) -> str:
    middle = f"{median(values):.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.1f} to {max(values):.1f})"


def _stack_file(variant: str) -> Path:
    document = yaml.safe_load(STACK.read_text())
    document["models"][0]["extra_args"] = VARIANTS[variant]
    STATE.mkdir(exist_ok=True)
    path = STATE / f"{variant}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _stack_state() -> Path:
    return STATE / "state/stacks" / _project()


def _project() -> str:
    return str(yaml.safe_load(STACK.read_text())["name"])


def _measure(path: Path, variant: str, start: str) -> Start:
    began = time.time()
    with console.step(f"{variant}, {start} start"), _first_completion() as completed:
        _up(path)
        ended = time.time()
    if not completed:
        raise StackError("the stack is up, and no client got a completion")
    (engine,) = (part for name, part in containers(connect(), _project()).items() if name.startswith("engine-"))
    lines = engine.logs(timestamps=True).decode(errors="replace").splitlines()
    ready = next(_unix(line.split()[0]) for line in lines if READY in line)
    return Start(
        variant, start, ready - _unix(engine.attrs["State"]["StartedAt"]),
        completed[0] - began, completed[0] - ready, ended - began,
    )  # fmt: skip


@contextmanager
def _first_completion() -> Iterator[list[float]]:
    """Asks the gateway from now on; in the list is the Unix time of its first completion, once there is one."""
    found: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not found and not stop.wait(0.1):
            try:
                state = _stack_state()
                local_gateway(applied_plan(state / "live"), state).completion("toy", "x")
            except (OSError, StackError, Refused, LookupError, ValueError, requests.RequestException):
                continue  # not up yet, in one of its many ways
            found.append(time.time())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _unix(time_of_docker: str) -> float:
    # nanoseconds, which Python does not read
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", time_of_docker)).timestamp()


def _up(path: Path) -> None:
    _script("up.py", path)


def _down(path: Path) -> None:
    _script("down.py", path)


def _script(name: str, path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / name), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{name} failed:\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    console.run(main)
