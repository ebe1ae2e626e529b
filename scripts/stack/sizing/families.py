"""Which architectures the formulas are known to hold for, and what is particular to each.

An architecture that is not here is refused: vLLM may serve it, but what it keeps for a token is not known. Read from
vLLM 0.32.0's vllm/model_executor/models/ and transformers' configuration classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Windows = Literal["none", "types", "pattern", "alternate", "all", "chunks"]
States = Literal["none", "delta", "mamba2"]


@dataclass(frozen=True)
class Family:
    """What one architecture does beside plain grouped-query attention and a gated MLP."""

    # Which layers see only the last tokens: what layer_types says; every ``sliding_window_pattern``-th is full; every
    # second; all of them; or chunks, three layers of four.
    windows: Windows = "none"
    states: States = "none"
    experts: bool = False
    latent: bool = False
    gated: bool = True  # gate, up and down; without: up and down
    tied: bool = False  # what tie_word_embeddings is when it is left out
    head_gate: bool = False  # attention has an output gate, as wide as the query
    # Where the number of heads of keys and values is named otherwise
    falcon: bool = False
    nested_text: bool = False  # the language model is under text_config
    seen_on: str = ""


_PLAIN = Family()
FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": _PLAIN,
    "MistralForCausalLM": Family(windows="all"),
    "MixtralForCausalLM": Family(windows="all", experts=True),
    "Qwen2ForCausalLM": _PLAIN,
    "Qwen2_5_VLForConditionalGeneration": _PLAIN,
    "Qwen3ForCausalLM": _PLAIN,
    "Qwen3VLForConditionalGeneration": Family(nested_text=True),
    "Qwen3MoeForCausalLM": Family(experts=True),
    "Qwen3NextForCausalLM": Family(states="delta", experts=True, head_gate=True),
    "Qwen3_5ForConditionalGeneration": Family(states="delta", nested_text=True, head_gate=True),
    "Gemma2ForCausalLM": Family(windows="alternate", tied=True),
    "Gemma3ForCausalLM": Family(windows="pattern", tied=True),
    "Gemma3ForConditionalGeneration": Family(windows="pattern", tied=True, nested_text=True),
    "Phi3ForCausalLM": Family(windows="all"),
    "DeepseekV2ForCausalLM": Family(latent=True, experts=True),
    "DeepseekV3ForCausalLM": Family(latent=True, experts=True),
    "GptOssForCausalLM": Family(windows="types", experts=True),
    "Glm4ForCausalLM": _PLAIN,
    "GraniteForCausalLM": Family(tied=True),
    "GraniteMoeHybridForCausalLM": Family(states="mamba2", experts=True, tied=True),
    "NemotronHForCausalLM": Family(states="mamba2", experts=True, gated=False),
    "Olmo2ForCausalLM": _PLAIN,
    "Olmo3ForCausalLM": Family(windows="types"),
    "Exaone4ForCausalLM": Family(windows="types"),
    "FalconForCausalLM": Family(falcon=True, gated=False, tied=True),
    "Llama4ForConditionalGeneration": Family(windows="chunks", experts=True, nested_text=True),
    "MiniMaxM2ForCausalLM": Family(experts=True),
}

# What vLLM serves and the formulas do not cover, and why: said instead of a guess.
REFUSED = {
    "GlmMoeDsaForCausalLM": "its sparse attention keeps an indexer's cache beside the latent one",
    "DeepseekV32ForCausalLM": "its sparse attention keeps an indexer's cache beside the latent one",
    "DeepseekV4ForCausalLM": "its compressed caches depend on kernels",
    "Gemma4ForConditionalGeneration": "its full and sliding layers have heads of different size",
    "MiMoV2FlashForCausalLM": "its full and sliding layers have a different number of heads",
    "DeciLMForCausalLM": "its layers differ one from the other",
    "WhisperForConditionalGeneration": "it keeps an encoder's states for each request",
}
