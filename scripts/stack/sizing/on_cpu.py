"""Engines on the CPU: the KV cache is what stack.yaml gives it, and there is no speed to predict."""

from __future__ import annotations

from dataclasses import replace

from stack.config.model import Model
from stack.sizing.candidates import Candidate
from stack.sizing.catalogue import constant
from stack.sizing.choice import Choice
from stack.sizing.kv_cache import cache_layout
from stack.sizing.memory import Memory, Setting, longest
from stack.sizing.roofline import Speed
from stack.sizing.shapes import Shape
from stack.sizing.wishes import wish_of

# vLLM's own defaults for an API server on a CPU: vllm/engine/arg_utils.py get_batch_defaults
SEQUENCES, BATCHED_TOKENS = 128, 2048


def choose(shape: Shape, model: Model) -> Choice:
    """One replica of the numbers that were left open."""
    wish = wish_of(model)
    setting = Setting(
        tensor_parallel_size=1,
        max_model_len=wish.max_model_len or shape.max_length,
        max_num_seqs=wish.max_num_seqs or SEQUENCES,
        max_num_batched_tokens=wish.max_num_batched_tokens or BATCHED_TOKENS,
        gpu_memory_utilization=wish.gpu_memory_utilization or constant("engine", "gpu_memory_utilization"),
        kv_cache_dtype=wish.kv_cache_dtype,
        prefix_caching=wish.prefix_caching,
    )
    memory = cpu_memory(shape, setting, model.cpu_kvcache_space * 1024**3)
    if wish.max_model_len is None:
        length = longest(memory, shape.max_length) or min(shape.max_length, wish.objective.request)
        memory = replace(memory, setting=replace(setting, max_model_len=length))
    request = min(wish.objective.request, memory.setting.max_model_len)
    if wish.max_num_seqs is None:
        seqs = max(1, min(SEQUENCES, memory.room(request)))
        memory = replace(memory, setting=replace(memory.setting, max_num_seqs=seqs))
    way = Candidate(1, wish.replicas or 1, memory, (), 0.0, 1, Speed(1, 0.0, 0.0, "memory"), request)
    return Choice(way, (way,), ("device cpu: one engine, the cache that cpu_kvcache_space gives it",))


def cpu_memory(shape: Shape, setting: Setting, space: int) -> Memory:
    """The cache of an engine on the CPU; vLLM turns its hybrid cache manager off there."""
    layout = cache_layout(
        shape, 1, setting.kv_cache_dtype, prefix_caching=setting.prefix_caching,
        block_size=constant("engine", "block_size_cpu"), hybrid_manager=False,
    )  # fmt: skip
    return Memory(space, space, 0, 0, 0, 0, 0, space, layout, setting)
