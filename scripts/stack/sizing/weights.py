"""Bytes of weights on each GPU: from the files' headers, or estimated from config.json where there are no files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stack.sizing.errors import CannotPlanError
from stack.sizing.headers import Tensor
from stack.sizing.shapes import Shape

# Tensors that every rank of a tensor-parallel engine holds whole: norms and biases of rows, routers, and the down
# projections of latent attention (vLLM's ReplicatedLinear).
_WHOLE = re.compile(r"norm|router|mlp\.gate\.|block_sparse_moe\.gate\.|kv_a_proj|q_a_proj|fused_qkv_a|sinks|e_score")
_KEYS = re.compile(r"\.[kv]_proj\.")
_LAYER = re.compile(r"\.layers\.(\d+)\.")
# Kept in the file, not on the GPU: heads for speculative decoding that are off unless asked for, positions.
_SKIPPED = re.compile(r"^mtp\.|\.mtp\.|rotary_emb\.inv_freq|^model\.mtp")


@dataclass(frozen=True)
class Weights:
    """Bytes on one GPU by tensor parallel size. estimated: from config.json alone."""

    shared: int
    whole: int
    keys: int
    kv_heads: int
    estimated: bool
    how: str

    @property
    def total(self) -> int:
        """Bytes of one copy."""
        return self.shared + self.whole + self.keys

    def per_gpu(self, size: int) -> int:
        """Bytes on one GPU of ``size``: heads of keys are copied where there are more GPUs than heads."""
        keys = self.keys * -(-self.kv_heads // size) / self.kv_heads if self.kv_heads < size else self.keys / size
        return round(self.shared / size + self.whole + keys)


def weights_of(shape: Shape, tensors: Iterable[Tensor] | None) -> Weights:
    """Weights of a model. Raises CannotPlanError where there is neither a header nor a rule for its quantization."""
    if tensors is None:
        return _estimate(shape)
    shared = whole = keys = 0
    for tensor in tensors:
        if _not_loaded(tensor.name, shape):
            continue
        if _KEYS.search(tensor.name):
            keys += tensor.size
        elif len(tensor.shape) == 1 or _WHOLE.search(tensor.name):
            whole += tensor.size
        else:
            shared += tensor.size
    how = "sum of the files' headers"
    if shape.quantization is not None and shape.quantization.on_load:
        # one byte of two goes from every weight of a linear layer
        shared -= min(shared, shape.linear + shape.experts)
        how += ", linear layers rounded to FP8 while they load"
    return Weights(shared, whole, keys, max(shape.kv_heads, 1), estimated=False, how=how)


def _not_loaded(name: str, shape: Shape) -> bool:
    if _SKIPPED.search(name):
        return True
    if name == "lm_head.weight" and shape.head == 0:
        return True
    layer = _LAYER.search(name)
    # DeepSeek keeps its speculative layers behind the last one
    return layer is not None and "vision" not in name and int(layer.group(1)) >= shape.depth


def _estimate(shape: Shape) -> Weights:
    wide = shape.bytes_per_weight
    small = shape.experts
    large = shape.embedding + shape.head + shape.rest
    rule = shape.quantization
    if rule is None:
        size = wide * (small + shape.linear)
    elif rule.bits == 0:
        raise CannotPlanError(f"quantization {rule.method!r} is not known, and there are no weight files to add up")
    else:
        per_weight = rule.bits / 8
        if rule.group > 0:
            per_weight += (1 if rule.method == "mxfp4" else 2 + rule.bits / 8 * (rule.method in {"awq", "gptq"})) / (
                rule.group
            )
        rounded = small + (shape.linear if rule.attention_too else 0)
        size = round(rounded * per_weight) + wide * (small + shape.linear - rounded)
    vision = wide * shape.vision.parameters if shape.vision else 0
    return Weights(
        shared=size + wide * (shape.embedding + shape.head) + vision,
        whole=wide * (large - shape.embedding - shape.head),
        keys=0,
        kv_heads=max(shape.kv_heads, 1),
        estimated=True,
        how="estimate from config.json (no weight files)",
    )
