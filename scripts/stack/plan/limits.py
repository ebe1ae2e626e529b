"""How much of a host's memory one engine may take before its own container is ended, and nobody else's.

Docker counts what is read from disk too, but gives that back before it ends anything; so a limit is about what an
engine holds: weights that are not on a GPU, caches, pinned buffers, its processes, /dev/shm and /tmp.
"""

from __future__ import annotations

from stack.config.model import Model

# Interpreters, torch and one step's activations. The toy engine held 1.3 GiB beside 1 GiB of cache (vLLM 0.32.0, CPU,
# measured as the cgroup's peak); the rest is for larger models' activations and the compilers that torch starts.
CPU_OVERHEAD_MIB = 6 * 1024
# Twice the size of 16-bit files as float32, and once more as the copy that oneDNN packs for its kernels.
CPU_TIMES_WEIGHTS = 4


def engine_memory_mib(device: str, model: Model, host_mib: int | None, weights_bytes: int) -> int | None:
    """MiB that one engine may hold; None where that is not known: a GPU host whose memory nobody told.

    On the CPU everything an engine holds is known. On a GPU host it is not: what loaders pin, what is offloaded. There
    a limit can only keep one engine from taking the whole host: an eighth is left for the host and the other parts. It
    is not divided by the engines, as one that offloads may need what its neighbours do not.
    """
    if model.memory_limit_gib is not None:
        return model.memory_limit_gib * 1024
    if device == "cpu":
        weights = CPU_TIMES_WEIGHTS * weights_bytes // 2**20
        return CPU_OVERHEAD_MIB + model.cpu_kvcache_space * 1024 + weights
    # whole GiB: a new kernel leaves some MiB more or less, which is no reason to replace an engine
    return None if host_mib is None else host_mib * 7 // 8 // 1024 * 1024
