"""config.json -> Shape. Raises CannotPlanError for what no formula is known for, ModelFilesError for a broken file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from stack.sizing.errors import CannotPlanError
from stack.sizing.families import FAMILIES, REFUSED, Family
from stack.sizing.feed_forward import feed_forward
from stack.sizing.fields import DTYPE_BYTES, Fields
from stack.sizing.mixers import Mixer, mixers
from stack.sizing.quantized import quantization_of
from stack.sizing.shapes import Shape
from stack.sizing.vision import vision_of


def shape_of(document: Mapping[str, Any], path: str, dtype: str = "auto", quantization: str | None = None) -> Shape:
    """The shape of the model whose config.json this is. dtype, quantization: as stack.yaml says."""
    top = Fields(document, path)
    name = _architecture(top)
    family = _family(name)
    nested = top.section("text_config")
    if family.nested_text and nested is None:
        raise top.error("text_config", f"is missing; {name} keeps its language model there")
    text = nested if nested is not None and "hidden_size" in nested.document else top
    hidden, vocabulary, heads = text.count("hidden_size"), text.count("vocab_size"), _heads(text)
    mixed = mixers(text, family, hidden, heads)
    fed = feed_forward(text, family, hidden, len(mixed))
    tied = _tied(top, text, family)
    embedding = vocabulary * hidden
    kept = Counter(mixer.layer for mixer in mixed if mixer.layer is not None)
    notes = []
    if family.windows == "chunks":
        notes.append("vLLM turns its hybrid cache manager off for chunked attention: every layer keeps all tokens")
    return Shape(
        architecture=name,
        hidden=hidden,
        vocabulary=vocabulary,
        heads=heads,
        kv_heads=max((layer.kv_heads for layer in kept), default=1),
        layers=tuple(kept.items()),
        depth=len(mixed),
        max_length=_max_length(text, nested or top),
        bytes_per_weight=_bytes_per_weight(top, text, dtype),
        embedding=embedding,
        head=0 if tied else embedding,
        linear=sum(mixer.parameters for mixer in mixed) + fed.dense,
        experts=fed.experts,
        expert_layers=fed.expert_layers,
        routed=fed.routed,
        rest=2 * hidden * len(mixed) + fed.routers,
        widest=max(_widest(mixed), fed.widest),
        quantization=quantization_of(top, quantization),
        vision=vision_of(top.section("vision_config"), hidden),
        notes=tuple(notes),
    )


def _architecture(top: Fields) -> str:
    named = top.document.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise top.error("architectures", "is missing; it says which formulas hold")
    return named[0]


def _family(name: str) -> Family:
    if name in REFUSED:
        raise CannotPlanError(f"{name} cannot be planned: {REFUSED[name]}")
    if name not in FAMILIES:
        raise CannotPlanError(f"{name} is not an architecture that the plan knows")
    return FAMILIES[name]


def _heads(text: Fields) -> int:
    return text.count("num_attention_heads", "n_head")


def _tied(top: Fields, text: Fields, family: Family) -> bool:
    if text.document.get("tie_word_embeddings") is not None:
        return text.flag("tie_word_embeddings")
    return top.flag("tie_word_embeddings", family.tied)


def _widest(mixed: list[Mixer]) -> int:
    return max((mixer.widest for mixer in mixed), default=0)


def _bytes_per_weight(top: Fields, text: Fields, dtype: str) -> int:
    said = text.text("dtype", "torch_dtype") or top.text("dtype", "torch_dtype") or "bfloat16"
    wanted = said if dtype == "auto" else dtype
    if wanted not in DTYPE_BYTES:
        raise top.error("torch_dtype", f"is {wanted!r}; known are {', '.join(DTYPE_BYTES)}")
    # vLLM serves a float32 checkpoint in 16 bits unless it is told: vllm/config/model.py, "auto"
    return 2 if dtype == "auto" else DTYPE_BYTES[wanted]


def _max_length(text: Fields, top: Fields) -> int:
    # as vllm/config/model.py _get_and_verify_max_len derives it
    length = text.count("max_position_embeddings", "seq_length", default=2048)
    scaling = text.section("rope_scaling") or text.section("rope_parameters")
    if scaling is None:
        return length
    kind = scaling.text("rope_type", "type") or "default"
    factor = scaling.document.get("factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 10_000:
        raise scaling.error("factor", f"is {factor!r}; a positive number is needed")
    if kind in {"yarn", "deepseek_yarn"}:
        return round(scaling.count("original_max_position_embeddings", default=length) * factor)
    if kind in {"linear", "dynamic"} and "gemma3" not in (top.text("model_type") or ""):
        return round(length * factor)
    return length
