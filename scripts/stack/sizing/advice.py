"""What would make a model fit that does not: the nearest changes, each of them worked out and seen to fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stack.sizing.candidates import SIZES, candidate, divides, sizes
from stack.sizing.catalogue import Card
from stack.sizing.memory import longest
from stack.sizing.shapes import Quantization, Shape
from stack.sizing.weights import Weights, weights_of
from stack.sizing.wishes import Wish

_GIB = 1024**3
_SMALLER = {"FP8": Quantization("fp8", 8, activations="fp8"), "4-bit": Quantization("awq", 4, 128)}


def shortage(shape: Shape, weights: Weights, card: Card, gpus: int, wish: Wish) -> str:
    """Why nothing fits: what the largest possible size would leave."""
    size = wish.tensor_parallel_size or max(sizes(shape, gpus), default=1)
    memory = candidate(shape, weights, card, size, 1, wish).memory
    needed = memory.layout.bytes_per_request(memory.setting.max_model_len, memory.setting.max_num_batched_tokens)
    return (
        f"does not fit {size} x {card.key}: of {memory.requested / _GIB:.1f} GiB on each GPU,"
        f" {memory.weights / _GIB:.1f} are weights"
        f" and {(memory.requested - memory.weights - memory.kv_cache) / _GIB:.1f} the engine's own,"
        f" which leaves {memory.kv_cache / _GIB:.1f} for the KV cache; one request of"
        f" {memory.setting.max_model_len} tokens takes {needed / _GIB:.1f}"
    )


def changes(shape: Shape, weights: Weights, card: Card, gpus: int, wish: Wish) -> Iterator[str]:
    """Changes, nearest first; every one was worked out with the same formulas and fits."""
    size = wish.tensor_parallel_size or max(sizes(shape, gpus), default=1)
    memory = candidate(shape, weights, card, size, 1, wish).memory
    shorter = longest(memory, memory.setting.max_model_len, 256)
    if 0 < shorter < memory.setting.max_model_len:
        yield f"max_model_len: {shorter}"
    for more in SIZES:
        if more > size and divides(shape, more) and candidate(shape, weights, card, more, 1, wish).fits:
            have = "" if more <= gpus else f" ({more} GPUs on one host)"
            yield f"tensor_parallel_size: {more}{have}"
            break
    if wish.kv_cache_dtype == "auto" and card.fp8_cache:
        small = replace(wish, kv_cache_dtype="fp8")
        if candidate(shape, weights, card, size, 1, small).fits:
            yield "kv_cache_dtype: fp8 (half the cache; costs some accuracy)"
    if shape.quantization is None:
        for name, rule in _SMALLER.items():
            rounded = replace(shape, quantization=rule)
            if candidate(rounded, weights_of(rounded, None), card, size, 1, wish).fits:
                yield f"a {name} version of the model"
                break
