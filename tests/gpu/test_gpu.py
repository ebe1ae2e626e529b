"""What CI cannot: a real start on this host's NVIDIA GPUs, its smoke test, and the plan against what vLLM logs.

Skipped, with the reason, where there is no GPU. GPU_STACK names another stack file than the toy model's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from stack.docker_host import connect, containers
from stack.errors import StackError
from stack.gpu.state import read_states
from stack.hardware import find_gpus
from stacks import ROOT

STACK_FILE = Path(os.environ.get("GPU_STACK") or Path(__file__).with_name("stack.yaml"))
STATE = ROOT / ".test-state-gpu"


def no_gpu() -> str:
    """Why this host cannot run these tests; empty where it can."""
    try:
        found = find_gpus()
    except StackError as error:
        return str(error)
    if not any(found):
        return "no NVIDIA GPU here (nvidia-smi is missing or names none): nothing of this was run on a GPU"
    return "" if found[0] else "every GPU here is in use: nothing of this was run on a GPU"


pytestmark = pytest.mark.skipif(bool(no_gpu()), reason=no_gpu())


@dataclass(frozen=True)
class Running:
    """The stack as it runs. log: an engine's log, by its name."""

    client: docker.DockerClient
    plan: Mapping[str, Any]
    started: str

    def log(self, engine: str) -> str:
        return str(containers(self.client, self.plan["project"])[engine].logs().decode(errors="replace"))


def script(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), str(STACK_FILE)]
    command += ["--json"] if name in ("up", "smoke") else []
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    client = connect()
    up = script("up")
    try:
        assert up.returncode == 0, up.stderr
        config = yaml.safe_load(STACK_FILE.read_text())
        state = ROOT / config.get("paths", {}).get("state", ".state")
        plan = json.loads((state / "stacks" / config["name"] / "live/plan.json").read_text())
        yield Running(client, plan, up.stdout)
    finally:
        script("down")
        shutil.rmtree(STATE, ignore_errors=True)


def test_it_starts_and_every_check_passes(running: Running) -> None:
    done = script("smoke")
    print(done.stdout)
    assert done.returncode == 0, done.stdout


def test_each_engine_sees_the_planned_gpus_and_no_others(running: Running) -> None:
    for engine in running.plan["engines"]:
        part = containers(running.client, running.plan["project"])[engine["name"]]
        code, output = part.exec_run(["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"])
        assert code == 0, output
        assert isinstance(output, bytes)
        assert sorted(output.decode().split()) == sorted(engine["gpus"])


def test_the_gpus_are_in_the_modes_that_were_checked(running: Running) -> None:
    states = read_states()
    for uuid in (uuid for engine in running.plan["engines"] for uuid in engine["gpus"]):
        print(states[uuid])
        assert (states[uuid].mig in ("Disabled", "[N/A]"), states[uuid].compute_mode) == (True, "Default")


def test_what_vllm_logs_is_what_was_planned(running: Running) -> None:
    for engine in running.plan["engines"]:
        log = running.log(engine["name"])
        tokens, gib = (
            logged(r"GPU KV cache size: ([\d,]+) tokens", log),
            logged(r"Available KV cache memory: ([\d.]+)", log),
        )
        per_token = kv_bytes(Path(engine["model_dir"]), len(engine["gpus"]))
        print(f"{engine['name']}: {tokens:.0f} tokens in {gib} GiB, {per_token} bytes a token by config.json")
        if "--max-model-len" in engine["argv"]:
            assert tokens >= int(engine["argv"][engine["argv"].index("--max-model-len") + 1])
        assert tokens * per_token == pytest.approx(gib * 2**30, rel=0.03)


def logged(pattern: str, log: str) -> float:
    found = re.search(pattern, log)
    assert found, f"the log has no line like {pattern!r}"
    return float(found[1].replace(",", ""))


def kv_bytes(folder: Path, gpus: int) -> int:
    """Bytes of KV cache for one token on one GPU, of a model with grouped heads and 16 bits a number."""
    config = json.loads((folder / "config.json").read_text())
    heads = config.get("num_key_value_heads", config["num_attention_heads"])
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(config["num_hidden_layers"] * 2 * max(1, heads // gpus) * size * 2)
