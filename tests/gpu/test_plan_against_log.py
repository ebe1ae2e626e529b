"""The plan's KV cache against the log of real engines on a GPU of this host, with dummy weights: no download.

Skipped, with the reason, where there is no idle GPU. A model that the plan says does not fit this card is skipped too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_log import CacheSize, cache_size
from stack.config.model import Model
from stack.config.schema import Images
from stack.errors import StackError
from stack.hardware import Gpu, Host, find_gpus
from stack.images.choice import choose
from stack.models.toy import make_toy_model
from stack.plan import vllm_args
from stack.sizing.files import known
from stack.sizing.resolve import Resolver
from stacks import ROOT
from unit import given
from unit.sizing.fixtures import config

# Plain attention, sliding windows, a recurrent state with experts, and one that fits most cards.
MODELS = ("qwen3-0.6b", "qwen3-8b", "gemma-2-9b", "nemotron-3-nano-30b-a3b")
END_TO_END = 0.10
START_SECONDS = 900


def idle() -> tuple[Gpu, ...]:
    """GPUs that nobody uses; none where there is no driver."""
    try:
        return find_gpus()[0]
    except StackError:
        return ()


pytestmark = pytest.mark.skipif(not idle(), reason="no idle NVIDIA GPU here: plan and log of a GPU were not compared")


@contextmanager
def engine(folder: Path, model: Model, gpu: Gpu) -> Iterator[str]:
    """The name of a container that starts the model; ended afterwards."""
    image = choose(ROOT, Images(), "registry", "cuda").references["vllm"]
    name = f"plan-against-log-{folder.name.replace('.', '-')}"
    command = ["docker", "run", "--detach", "--name", name, "--gpus", f"device={gpu.uuid}", "--network", "none"]
    command += ["--ipc", "host", "--volume", f"{folder}:{vllm_args.MODEL_MOUNT}:ro"]
    command += ["--volume", f"{folder}/engine.yaml:{vllm_args.SECRET_CONFIG}:ro"]
    command += ["--entrypoint", vllm_args.ENTRYPOINT[0], image]
    command += [
        *vllm_args.ENTRYPOINT[1:],
        *vllm_args.argv(given.config(device="cuda"), model),
        "--load-format",
        "dummy",
    ]
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    subprocess.run(command, check=True, capture_output=True, text=True)
    try:
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def logged(name: str) -> CacheSize:
    """What the engine says of its cache, once it does."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
        said = cache_size(done.stdout + done.stderr)
        if said is not None:
            return said
        state = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Running}}", name], capture_output=True, text=True, check=True
        )
        assert state.stdout.strip() == "true", (done.stdout + done.stderr)[-4000:]
        time.sleep(2)
    raise AssertionError(f"{name} said nothing of its KV cache in {START_SECONDS} s")


@pytest.mark.parametrize("name", MODELS)
def test_the_log_says_what_the_plan_said(name: str, tmp_path: Path) -> None:
    gpu = idle()[0]
    folder = tmp_path / name
    make_toy_model(folder)
    (folder / "model.safetensors").unlink()  # its tokenizer serves; weights are made up by the engine
    (folder / "config.json").write_text(json.dumps(config(name)))
    (folder / "engine.yaml").write_text(json.dumps({"api-key": ["of-nobody"]}))
    keys = dict.fromkeys(("max_model_len", "max_num_seqs", "gpu_memory_utilization"), "auto")
    stack = given.config(given.toy(**keys), device="cuda")
    files = {"toy": known(folder, stack.models[0])}
    try:
        resolved, (sized,) = Resolver(stack, files).host(Host(gpus=(gpu,)))
    except StackError as error:
        pytest.skip(f"{name} on {gpu.model}: {error}")
    assert sized.choice is not None
    planned = sized.choice.chosen.memory
    with engine(folder, resolved.models[0], gpu) as container:
        said = logged(container)
    shutil.rmtree(folder)
    print(f"\n{name} on {gpu.model}: log {said}, plan {planned.tokens} tokens, {planned.kv_cache / 1024**3:.2f} GiB")
    assert said.length == planned.setting.max_model_len
    assert planned.tokens == pytest.approx(said.tokens, rel=END_TO_END)
