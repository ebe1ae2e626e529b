"""What an engine's own log says about why it does not start, in terms of the stack file's keys."""

from __future__ import annotations

import re
from collections.abc import Callable

_MEMORY = "raise gpu_memory_utilization (device cuda) or cpu_kvcache_space (device cpu)"


def _too_long(found: re.Match[str]) -> str:
    length, needed, there, fits = found["length"], found["needed"], found["there"], found["fits"]
    at_most = f" to at most {fits}" if fits else ""
    return (
        f"no space for the KV cache: one request of max_model_len {length} needs {needed} GiB, and {there} GiB are"
        f" there. Lower max_model_len{at_most}, or {_MEMORY}, or use more GPUs for one engine (tensor_parallel_size)"
    )


def _no_space(_: re.Match[str]) -> str:
    return (
        f"no space for the KV cache: the model's weights and its work fill what vLLM may take. {_MEMORY.capitalize()},"
        " lower max_num_seqs, use more GPUs for one engine (tensor_parallel_size) or a quantized model"
    )


def _cpu_memory(found: re.Match[str]) -> str:
    return (
        f"this host has {found['there']} GiB of memory free, and cpu_kvcache_space asks for {found['asked']} GiB: lower"
        " it, or stop what uses the memory"
    )


def _gpu_taken(found: re.Match[str]) -> str:
    return (
        f"the GPU has {found['free']} GiB free and gpu_memory_utilization asks for more: somebody else uses it (see"
        " `nvidia-smi`), or lower gpu_memory_utilization"
    )


def _out_of_memory(_: re.Match[str]) -> str:
    return "the GPU's memory is full: lower gpu_memory_utilization or max_num_seqs, or use more GPUs for one engine"


# vLLM 0.32's own words: v1.core.kv_cache_utils, v1.worker.cpu_worker, gpu_worker and utils, and PyTorch's.
_KNOWN: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"max seq len \((?P<length>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the"
        r" available KV cache memory \((?P<there>[\d.]+) GiB\)\."
        r"(?: Based on the available memory, the estimated maximum model length is (?P<fits>\d+)\.)?",
        _too_long,
    ),
    (r"No available memory for the cache blocks", _no_space),
    (
        r"Available memory on node \S+ \((?P<there>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested"
        r" memory for kv \((?P<asked>[\d.]+) GiB\)",
        _cpu_memory,
    ),
    (r"Free memory on device \S* ?\((?P<free>[\d.]+)/[\d.]+ GiB\) on startup", _gpu_taken),
    (r"OutOfMemoryError: CUDA out of memory", _out_of_memory),
)


def explain(log: str) -> str | None:
    """Why an engine cannot start with this stack file, and what to change; None where the log has no known cause."""
    for pattern, say in _KNOWN:
        found = re.search(pattern, log)
        if found:
            return say(found)
    return None
