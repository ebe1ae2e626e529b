"""Lines of real logs: what they say, and that the plan says the same of the toy model on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_log import CacheSize, cache_size
from stack.hardware import Host
from stack.models.toy import make_toy_model
from stack.sizing.files import known
from stack.sizing.resolve import Resolver
from unit import given

# vLLM 0.32.0 on the CPU with the toy model and VLLM_CPU_KVCACHE_SPACE=1: recorded from engines of this project. The
# length without an entry in the log is what its metrics said: 8192 blocks, 1,048,576 tokens, concurrency 256.
RECORDED = (
    "(EngineCore pid=141) INFO 11-25 03:28:14 [kv_cache_utils.py:2327] CPU KV cache size: 1,048,576 tokens,"
    " Maximum concurrency for 2,048 tokens per request: 512.00x"
)
GPU = (
    "INFO 06-25 17:21:58 [gpu_worker.py:436] Available KV cache memory: 19.36 GiB\n"
    "INFO 06-25 17:21:58 [kv_cache_utils.py:1319] GPU KV cache size: 140,960 tokens, Maximum concurrency for 40,960"
    " tokens per request: 3.44x\n"
)
# vLLM 0.32.0 on an H200 with Llama 3.1 8B: recorded by this project (docs/plan.md, row 17), without folders of files.
H200 = (
    "(EngineCore pid=2009) INFO 11-28 03:24:23 [gpu_worker.py:759] Available KV cache memory: 110.99 GiB\n"
    "(EngineCore pid=2009) INFO 11-28 03:24:23 [kv_cache_utils.py:2327] GPU KV cache size: 909,216 tokens,"
    " Maximum concurrency for 131,072 tokens per request: 6.94x\n"
)


def test_what_a_log_says_is_read() -> None:
    assert cache_size(RECORDED) == CacheSize(1_048_576, 2048, 512.0, None)
    assert cache_size(GPU) == CacheSize(140_960, 40_960, 3.44, 19.36)
    assert cache_size(H200) == CacheSize(909_216, 131_072, 6.94, 110.99)
    assert cache_size("INFO loading ...") is None


@pytest.mark.parametrize(("length", "tokens", "concurrency"), [(2048, 1_048_576, 512.0), (4096, 1_048_576, 256.0)])
def test_the_cpu_engine_and_the_plan_say_the_same(tmp_path: Path, length: int, tokens: int, concurrency: float) -> None:
    folder = tmp_path / "toy"
    make_toy_model(folder)
    config = given.config(given.toy(max_model_len=length, cpu_kvcache_space=1))
    files = {"toy": known(folder, config.models[0])}
    _, (sized,) = Resolver(config, files).host(Host())
    assert sized.choice is not None
    memory = sized.choice.chosen.memory
    assert (memory.tokens, memory.concurrency) == (tokens, concurrency)
