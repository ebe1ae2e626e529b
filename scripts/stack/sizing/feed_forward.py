"""The MLPs of a model: dense ones, and experts of which a router picks a few for each token."""

from __future__ import annotations

from dataclasses import dataclass

from stack.sizing.families import Family
from stack.sizing.fields import Fields
from stack.sizing.shapes import Experts


@dataclass(frozen=True)
class FeedForward:
    """Parameters of all layers together. dense: used by every token, shared experts too; routers: kept in 16 bits."""

    dense: int
    experts: int
    expert_layers: int
    routed: Experts | None
    routers: int
    widest: int


def feed_forward(text: Fields, family: Family, hidden: int, count: int) -> FeedForward:
    """The MLPs of ``count`` layers."""
    matrices = 3 if family.gated else 2
    experts = _experts(text) if family.experts else None
    sparse = _sparse_layers(text, count) if experts else []
    letters = text.text("hybrid_override_pattern")
    dense_layers = letters.count("-") if letters else count - len(sparse)
    dense_size = _dense_size(text, family, hidden) if dense_layers else 0
    if experts is None or not sparse:
        dense = matrices * hidden * dense_size * dense_layers
        return FeedForward(dense, 0, 0, None, 0, matrices * dense_size)
    shared = _shared_size(text, experts)
    return FeedForward(
        dense=matrices * hidden * (dense_size * dense_layers + shared * len(sparse)),
        experts=matrices * hidden * experts.size * experts.count * len(sparse),
        expert_layers=len(sparse),
        routed=experts,
        routers=hidden * experts.count * len(sparse),
        widest=matrices * max(dense_size, shared),
    )


def _experts(text: Fields) -> Experts | None:
    count = text.count("num_local_experts", "n_routed_experts", "num_experts", default=0, least=0)
    if not count:
        return None
    used = text.count("num_experts_per_tok", "experts_per_token")
    if used > count:
        raise text.error("num_experts_per_tok", f"is {used}, but there are {count} experts")
    return Experts(count, used, text.count("moe_intermediate_size", "intermediate_size"))


def _sparse_layers(text: Fields, count: int) -> list[int]:
    letters = text.text("hybrid_override_pattern")
    if letters is not None:
        return [index for index, letter in enumerate(letters) if letter == "E"]
    first = text.count("first_k_dense_replace", default=0, least=0)
    # Llama 4 and DeepSeek count every n-th layer, Qwen from the n-th on
    step = text.count("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq", default=1)
    dense = text.document.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise text.error("mlp_only_layers", "must be a list of layer numbers")
    return [index for index in range(first, count) if (index + 1) % step == 0 and index not in dense]


def _dense_size(text: Fields, family: Family, hidden: int) -> int:
    if family.falcon:  # transformers' FalconConfig: 4 x hidden_size unless it is said
        return text.count("ffn_hidden_size", default=4 * hidden)
    return text.count("intermediate_size_mlp", "intermediate_size")


def _shared_size(text: Fields, experts: Experts) -> int:
    said = text.count(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size",
        default=0, least=0,
    )  # fmt: skip
    if said:
        return said
    if "interleave_moe_layer_step" in text.document:  # Llama 4: one shared expert of the same size
        return experts.size
    return text.count("n_shared_experts", default=0, least=0) * experts.size
