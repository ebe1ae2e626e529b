"""What mixes tokens in each layer - attention, or a recurrent state - with what it keeps and its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from stack.sizing.errors import CannotPlanError
from stack.sizing.families import Family
from stack.sizing.fields import DTYPE_BYTES, Fields
from stack.sizing.shapes import Layer, StatePart


@dataclass(frozen=True)
class Mixer:
    """One layer's token mixer. layer: None where it has none (a layer that is an MLP only).

    widest: elements of one token while it works, to be shared by the ranks.
    """

    layer: Layer | None
    parameters: int
    widest: int


def mixers(text: Fields, family: Family, hidden: int, heads: int) -> list[Mixer]:
    """One Mixer for each layer, in order."""
    count = text.count("num_hidden_layers", "n_layer")
    if family.latent:
        return [_latent(text, hidden, heads)] * count
    full = _attention(text, family, hidden, heads)
    if family.states == "none":
        return _windowed(text, family, full, count)
    state = _delta(text, hidden) if family.states == "delta" else _mamba2(text, hidden)
    nothing = Mixer(None, 0, 0)
    kinds = {"*": full, "M": state, "-": nothing, "E": nothing}
    return [kinds[letter] for letter in _pattern(text, count)]


def _attention(text: Fields, family: Family, hidden: int, heads: int) -> Mixer:
    size = text.count("head_dim", "attention_head_dim", default=0, least=0) or hidden // heads
    kv_heads = _kv_heads(text, family, heads)
    if heads % kv_heads:
        raise text.error("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} attention heads")
    query = heads * size * (2 if family.head_gate else 1)
    keys = 2 * kv_heads * size
    parameters = hidden * (query + keys) + heads * size * hidden
    return Mixer(Layer("full", kv_heads, size, size), parameters, query + keys + heads * size)


def _kv_heads(text: Fields, family: Family, heads: int) -> int:
    if not family.falcon:
        return text.count("num_key_value_heads", default=heads)
    # transformers' FalconConfig: num_kv_heads is what it says only in the newer decoder
    if text.flag("new_decoder_architecture"):
        return text.count("num_kv_heads", "n_head_kv", default=heads)
    return 1 if text.flag("multi_query", default=True) else heads


def _windowed(text: Fields, family: Family, full: Mixer, count: int) -> list[Mixer]:
    if text.flag("use_sliding_window") and family.windows == "none":
        raise CannotPlanError("use_sliding_window with max_window_layers mixes layers in a way that is not covered")
    window = text.count("sliding_window", default=0)
    if family.windows in {"none", "chunks"} or not window:
        return [full] * count
    assert full.layer is not None
    layer = Layer("sliding", full.layer.kv_heads, full.layer.key_size, full.layer.value_size, window)
    sliding = Mixer(layer, full.parameters, full.widest)
    return [sliding if slides else full for slides in _slides(text, family, count)]


def _slides(text: Fields, family: Family, count: int) -> list[bool]:
    types = text.words("layer_types", count)
    if types is not None:
        return [word == "sliding_attention" for word in types]
    if family.windows == "all":
        return [True] * count
    if family.windows == "alternate":
        return [index % 2 == 0 for index in range(count)]
    if family.windows == "pattern":
        every = text.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
        return [(index + 1) % every != 0 for index in range(count)]
    raise text.error("layer_types", "is missing; it says which layers have a window")


def _latent(text: Fields, hidden: int, heads: int) -> Mixer:
    rank, rope = text.count("kv_lora_rank"), text.count("qk_rope_head_dim")
    nope, value = text.count("qk_nope_head_dim"), text.count("v_head_dim")
    low = text.count("q_lora_rank", default=0, least=0)
    query = heads * (nope + rope)
    parameters = hidden * low + low * query if low else hidden * query
    parameters += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    return Mixer(Layer("latent", 1, rank + rope, 0), parameters, query + heads * (nope + 2 * value))


def _pattern(text: Fields, count: int) -> str:
    letters = text.text("hybrid_override_pattern")
    if letters is not None:
        if len(letters) != count or set(letters) - set("M*-E"):
            raise text.error("hybrid_override_pattern", f"must be {count} letters of M, *, - and E")
        return letters
    types = text.words("layer_types", count)
    if types is not None:
        return "".join("*" if word in {"full_attention", "attention"} else "M" for word in types)
    every = text.count("full_attention_interval")
    return "".join("M" if (index + 1) % every else "*" for index in range(count))


def _delta(text: Fields, hidden: int) -> Mixer:
    # vllm/model_executor/layers/mamba/mamba_utils.py gated_delta_net_state_shape
    key_heads, value_heads = text.count("linear_num_key_heads"), text.count("linear_num_value_heads")
    key, value = text.count("linear_key_head_dim"), text.count("linear_value_head_dim")
    convolved = 2 * key_heads * key + value_heads * value
    window = text.count("linear_conv_kernel_dim") - 1
    parameters = hidden * (convolved + value_heads * value + 2 * value_heads) + value_heads * value * hidden
    parts = (
        StatePart(window * convolved, None, key_heads),
        StatePart(value_heads * value * key, _state_bytes(text, "mamba_ssm_dtype"), value_heads),
    )
    return Mixer(Layer("state", state=parts), parameters, 2 * convolved + 2 * value_heads * value)


def _mamba2(text: Fields, hidden: int) -> Mixer:
    # the same module's mamba2_state_shape; Nemotron-H keeps its state in float32 (models/config.py)
    heads = text.count("mamba_num_heads", "mamba_n_heads")
    size = text.count("mamba_head_dim", "mamba_d_head")
    groups = text.count("n_groups", "mamba_n_groups")
    state = text.count("ssm_state_size", "mamba_d_state")
    window = text.count("conv_kernel", "mamba_d_conv") - 1
    inner = heads * size
    parameters = hidden * (2 * inner + 2 * groups * state + heads) + inner * hidden
    default = 4 if "ssm_state_size" in text.document else None
    parts = (
        StatePart(window * inner, None, heads),
        StatePart(window * 2 * groups * state, None, groups),
        StatePart(inner * state, _state_bytes(text, "mamba_ssm_cache_dtype", default), heads),
    )
    return Mixer(Layer("state", state=parts), parameters, 3 * inner + 2 * groups * state)


def _state_bytes(text: Fields, key: str, default: int | None = None) -> int | None:
    word = text.text(key)
    if word is None or word == "auto":
        return default
    if word not in DTYPE_BYTES:
        raise text.error(key, f"is {word!r}; known are {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[word]
