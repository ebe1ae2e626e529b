"""quantization_config -> how many bits a weight has, and what the tensor cores may multiply."""

from __future__ import annotations

from collections.abc import Callable

from stack.sizing.fields import Fields
from stack.sizing.shapes import Quantization

_BITS = range(2, 9)


def quantization_of(top: Fields, asked: str | None = None) -> Quantization | None:
    """What the model's files say. asked: stack.yaml's ``quantization``, for 16-bit files that vLLM rounds as it loads.

    A method that is not known has 0 bits: its size is taken from the files' headers or not at all.
    """
    section = top.section("quantization_config")
    if section is None:
        return Quantization("fp8", 8, activations="fp8", on_load=True) if asked == "fp8" else None
    method = (section.text("quant_method") or "").lower()
    rules: dict[str, Callable[[Fields, str], Quantization]] = {
        "awq": _packed,
        "gptq": _packed,
        "fp8": lambda *_: Quantization("fp8", 8, activations="fp8"),
        "fbgemm_fp8": lambda *_: Quantization("fbgemm_fp8", 8, activations="fp8", attention_too=False),
        "mxfp4": lambda *_: Quantization("mxfp4", 4, 32, attention_too=False),
        "compressed-tensors": _compressed,
        "modelopt": _modelopt,
    }
    rule = rules.get(method)
    return rule(section, method) if rule else Quantization(method or "unnamed", 0)


def _packed(section: Fields, method: str) -> Quantization:
    bits = _bits(section, "bits", "w_bit")
    return Quantization(method, bits, section.count("group_size", "q_group_size", default=128, least=-1))


def _modelopt(section: Fields, method: str) -> Quantization:
    algorithm = (section.text("quant_algo") or "").upper()
    known = {"FP8": Quantization(method, 8, activations="fp8"), "NVFP4": Quantization(method, 4, 16, activations="fp4")}
    return known.get(algorithm, Quantization(method, 0))


def _compressed(section: Fields, method: str) -> Quantization:
    groups = section.section("config_groups")
    first = groups.section(next(iter(groups.document))) if groups and groups.document else None
    weights = first.section("weights") if first else None
    if first is None or weights is None:
        return Quantization(method, 0)
    bits = _bits(weights, "num_bits")
    kind = "fp" if weights.text("type") == "float" else "int"
    active = f"{kind}{bits}" if first.section("input_activations") else "bf16"
    return Quantization(method, bits, weights.count("group_size", default=0, least=-1), active)


def _bits(section: Fields, *keys: str) -> int:
    bits = section.count(*keys)
    if bits not in _BITS:
        raise section.error(keys[0], f"is {bits}; 2 to 8 bits are known")
    return bits
