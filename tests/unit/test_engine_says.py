"""Why an engine does not start: vLLM 0.32's own words, as its sources have them, in terms of the stack file's keys."""

from __future__ import annotations

import pytest

from stack.engine_says import explain

# Formatted by the statements of vLLM 0.32; the numbers are constructed.
TOO_LONG = (
    "(EngineCore pid=24) ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV"
    " cache is needed, which is larger than the available KV cache memory (5.53 GiB). "
)
ESTIMATE = "Based on the available memory, the estimated maximum model length is 45280. "


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (TOO_LONG + ESTIMATE + "Try increasing", ["max_model_len 131072", "16.0 GiB", "5.53 GiB", "at most 45280"]),
        (TOO_LONG + "Try increasing", ["max_model_len 131072", "cpu_kvcache_space", "gpu_memory_utilization"]),
        ("ValueError: No available memory for the cache blocks. Try", ["KV cache", "gpu_memory_utilization"]),
        (
            "ValueError: Available memory on node 0 (1.2/23.4 GiB) on kv cache allocation is less than requested memory"
            " for kv (40.0 GiB). Decrease",
            ["1.2 GiB", "40.0 GiB", "cpu_kvcache_space"],
        ),
        ("ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than", ["3.1 GiB", "nvidia-smi"]),
        ("ValueError: Free memory on device (3.1/79.2 GiB) on startup. Desired", ["3.1 GiB", "gpu_memory_utilization"]),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to", ["max_num_seqs"]),
    ],
)
def test_a_known_cause_is_told_with_the_keys_to_change(said: str, words: list[str]) -> None:
    told = explain(f"INFO starting\n{said}\nTraceback\n")
    assert told is not None
    assert [word for word in words if word not in told] == []


def test_what_is_not_known_is_left_to_the_log() -> None:
    assert explain("INFO Application startup complete.\nKeyError: 'x'\n") is None
