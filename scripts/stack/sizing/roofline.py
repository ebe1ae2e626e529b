"""How fast an engine can be at best: memory bandwidth against tensor cores, with what collectives cost.

A step reads the weights once and every running request's cache; it cannot be faster than the memory, nor than the
tensor cores multiply. What kernels reach of either is a constant with its source. Upper bounds, not promises.
"""

from __future__ import annotations

from dataclasses import dataclass

from stack.sizing.catalogue import Card, constant
from stack.sizing.kv_cache import CACHE_BYTES, state_bytes
from stack.sizing.shapes import Shape
from stack.sizing.weights import Weights

BATCHES = (1, 8, 16, 32, 64)


@dataclass(frozen=True)
class Speed:
    """One engine at one batch size. Rates in tokens a second; bound: memory or compute."""

    batch: int
    per_user: float
    total: float
    bound: str


def compute_kind(shape: Shape, card: Card) -> str:
    """What the tensor cores multiply: the files' small numbers where the card can, else 16 bits."""
    wanted = shape.quantization.activations if shape.quantization else "bf16"
    if wanted in card.rates and wanted != "bf16":
        return wanted
    return "bf16" if "bf16" in card.rates else "fp16"


def decode(
    shape: Shape, weights: Weights, card: Card, size: int, batch: int, context: int, cache: str = "auto"
) -> Speed:
    """One step for ``batch`` requests of ``context`` tokens each on ``size`` GPUs."""
    read = _weights_read(shape, weights, batch) / size + batch * cache_read(shape, size, context, cache)
    memory = read / (card.bandwidth * constant("speed", "bandwidth_share"))
    rate = card.rates[compute_kind(shape, card)] * constant("speed", "compute_share")
    compute = 2 * shape.active * batch / size / rate
    seconds = max(memory, compute) + collectives(shape, card, size, batch) + constant("speed", "step_overhead")
    return Speed(batch, 1 / seconds, batch / seconds, "memory" if memory >= compute else "compute")


def prefill(shape: Shape, card: Card, size: int, tokens: int) -> float:
    """Seconds for a prompt of ``tokens`` tokens, with nothing else on the engine."""
    rate: float = card.rates[compute_kind(shape, card)] * constant("speed", "compute_share") * size
    # attention of each token over half of the others
    kept = [(layer, count) for layer, count in shape.layers if layer.kind != "state"]
    seen = sum(count * min(tokens / 2, layer.window or tokens) for layer, count in kept)
    attention = 4 * shape.heads * max((layer.key_size for layer, _ in kept), default=0) * seen * tokens
    seconds: float = (2 * shape.active * tokens + attention) / rate + constant("speed", "step_overhead")
    return seconds + collectives(shape, card, size, tokens)


def collectives(shape: Shape, card: Card, size: int, tokens: int) -> float:
    """Seconds of the two all-reduces of each layer."""
    if size == 1:
        return 0.0
    one_way = (card.nvlink or constant("speed", "pcie") * 1e9) / 2
    message = tokens * shape.hidden * shape.bytes_per_weight
    ring = 2 * (size - 1) / size * message / one_way
    return float(2 * shape.depth * (ring + constant("speed", "all_reduce_latency")))


def cache_read(shape: Shape, size: int, context: int, cache: str = "auto") -> float:
    """Bytes that one request's step reads of its cache on each GPU."""
    width = CACHE_BYTES[cache] or shape.bytes_per_weight
    read = 0.0
    for layer, count in shape.layers:
        if layer.kind == "state":
            read += 2 * count * state_bytes(layer, size, shape.bytes_per_weight)  # read and written
        else:
            heads = max(1, layer.kv_heads // size)
            tokens = min(context, layer.window) if layer.window else context
            read += count * heads * (layer.key_size + layer.value_size) * width * tokens
    return read


def _weights_read(shape: Shape, weights: Weights, batch: int) -> float:
    # the embedding table is looked up, not read; of the experts those that the batch's tokens chose
    unread = shape.embedding if shape.head else 0
    size_of = weights.total / max(shape.parameters, 1)
    if shape.routed is None:
        return weights.total - unread * shape.bytes_per_weight
    share = 1 - (1 - shape.routed.per_token / shape.routed.count) ** batch
    plain = float((shape.parameters - shape.experts - unread) * shape.bytes_per_weight)
    experts = float(max(weights.total - (shape.parameters - shape.experts) * shape.bytes_per_weight, 0))
    if shape.quantization is not None and shape.quantization.attention_too:
        plain, experts = (shape.parameters - shape.experts - unread) * size_of, shape.experts * size_of
    return plain + share * experts
