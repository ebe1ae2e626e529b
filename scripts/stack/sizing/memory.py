"""Where the memory of each GPU goes: weights, activations, CUDA graphs, buffers, and what is left for the KV cache.

    KV cache = utilization x total - weights - activations - graphs - non-torch - NCCL      (all of one GPU)

as vllm.v1.worker.gpu_worker determine_available_memory measures it; docs/plan.md has each term and its source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from stack.sizing.catalogue import Card, constant
from stack.sizing.kv_cache import CacheLayout, cache_layout
from stack.sizing.shapes import Shape
from stack.sizing.weights import Weights


@dataclass(frozen=True)
class Setting:
    """The flags of one engine that memory and speed depend on."""

    tensor_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str = "auto"
    prefix_caching: bool = True
    eager: bool = False


@dataclass(frozen=True)
class Era:
    """What the engine's version does in its profile run; the plan is for now(), the others are for published logs.

    state_bytes_per_logit: what its sampler keeps for each sequence and word of the vocabulary. tunes: whether it
    measures compiled kernels on tensors of their own, the embedding table's size among them.
    """

    sampler_bytes_per_logit: float
    non_torch: int
    counts_graphs: bool
    state_bytes_per_logit: float = 0
    tunes: bool = False


def now() -> Era:
    """vLLM 0.32, whose second model runner all plans get."""
    sampler, state = (constant("engine", f"{name}_bytes_per_logit") for name in ("sampler", "state"))
    return Era(sampler, constant("gpu", "non_torch"), counts_graphs=True, state_bytes_per_logit=state, tunes=True)


@dataclass(frozen=True)
class Memory:
    """One GPU's memory, in bytes. kv_cache may be negative: then the engine does not start."""

    usable: int
    requested: int
    weights: int
    activations: int
    graphs: int
    non_torch: int
    nccl: int
    kv_cache: int
    layout: CacheLayout
    setting: Setting

    @property
    def headroom(self) -> int:
        """What the engine is told to leave alone."""
        return self.usable - self.requested

    @property
    def tokens(self) -> int:
        """ "GPU KV cache size" of the engine's log."""
        return self.layout.tokens(self.kv_cache, self.setting.max_model_len, self.setting.max_num_batched_tokens)

    @property
    def concurrency(self) -> float:
        """Requests of the full length at once."""
        return self.layout.concurrency(self.kv_cache, self.setting.max_model_len, self.setting.max_num_batched_tokens)

    @property
    def fits(self) -> bool:
        """Whether the engine starts: one request of the full length beside the block that vLLM keeps back."""
        needed = self.layout.bytes_per_request(self.setting.max_model_len, self.setting.max_num_batched_tokens)
        return needed + self.layout.bytes_per_block <= self.kv_cache

    def room(self, length: int) -> int:
        """Requests of ``length`` tokens that the cache holds at once."""
        return int(self.layout.concurrency(self.kv_cache, length, self.setting.max_num_batched_tokens))


def memory_of(shape: Shape, weights: Weights, card: Card, setting: Setting, era: Era | None = None) -> Memory:
    """The memory of each GPU of an engine of ``setting`` on cards of one kind."""
    era = era or now()
    size = setting.tensor_parallel_size
    requested = ceil(card.usable * setting.gpu_memory_utilization)
    spent = {
        "weights": weights.per_gpu(size),
        "activations": activations(shape, setting, era),
        "graphs": graphs(shape, setting) if era.counts_graphs and not setting.eager else 0,
        "non_torch": era.non_torch + ceil(setting.max_num_seqs * shape.vocabulary * era.state_bytes_per_logit),
        "nccl": _nccl(size),
    }
    layout = cache_layout(shape, size, setting.kv_cache_dtype, prefix_caching=setting.prefix_caching)
    return Memory(
        usable=card.usable,
        requested=requested,
        **spent,
        kv_cache=requested - sum(spent.values()),
        layout=layout,
        setting=setting,
    )


def activations(shape: Shape, setting: Setting, era: Era | None = None) -> int:
    """The peak of the profiled step: the widest layer, the sampler, the image encoder or the measuring of compiled
    kernels, whichever is largest.
    """
    era = era or now()
    width, size, tokens = shape.bytes_per_weight, setting.tensor_parallel_size, setting.max_num_batched_tokens
    # residual, normed input and output of every token, beside the widest layer's own
    forward = tokens * width * (3 * shape.hidden + max(shape.widest / size, _experts(shape, size)))
    rows = min(setting.max_num_seqs, tokens)
    sampler = rows * shape.vocabulary * era.sampler_bytes_per_logit + tokens * shape.hidden * width
    tuning = _tuning(shape, setting) if era.tunes and not setting.eager else 0
    return ceil(max(forward, sampler, _encoder(shape), tuning))


def _tuning(shape: Shape, setting: Setting) -> float:
    # Inductor's benchmark_combo_kernel makes every argument of a kernel anew: of the first one the embedding table, the
    # rows looked up and their norm. Models that see get their rows from outside the compiled part.
    table = 0 if shape.vision else shape.embedding / setting.tensor_parallel_size
    return (table + 2 * setting.max_num_batched_tokens * shape.hidden) * shape.bytes_per_weight


def _experts(shape: Shape, size: int) -> float:
    # fused_moe: the first and the third cache share memory, the second lies beside them; outputs are not sharded
    if shape.routed is None:
        return 0.0
    inner = shape.routed.size / size
    return shape.routed.per_token * (max(2 * inner, shape.hidden) + inner)


def _encoder(shape: Shape) -> int:
    if shape.vision is None:
        return 0
    per_patch = 6 * shape.vision.hidden + 2 * shape.vision.intermediate + shape.hidden
    return shape.vision.patches * per_patch * shape.bytes_per_weight


def graphs(shape: Shape, setting: Setting) -> int:
    """Memory of captured CUDA graphs: one a batch size, piecewise and for decoding."""
    largest = min(2 * setting.max_num_seqs, constant("engine", "max_capture_size"), setting.max_num_batched_tokens)
    captured = _capture_sizes(largest) + _capture_sizes(min(largest, setting.max_num_seqs))
    return int(captured * shape.depth * constant("gpu", "graph_bytes_per_layer"))


def _capture_sizes(largest: int) -> int:
    # vllm/config/vllm.py: 1, 2, 4, then steps of 8 below 256, then of 16
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)]
    return sum(size <= largest for size in sizes)


def _nccl(size: int) -> int:
    table: dict[int, int] = constant("gpu", "nccl")
    return table[min((known for known in table if known >= size), default=max(table))]


def longest(memory: Memory, most: int, step: int = 1024) -> int:
    """The longest request, up to ``most``, that fits beside this engine's weights; 0 where none does."""

    def fits(length: int) -> bool:
        return replace(memory, setting=replace(memory.setting, max_model_len=length)).fits

    if fits(most):
        return most
    low, high = 0, most // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle - 1)
    return low * step
