"""A toy model: a real 2-layer Llama with random weights (2.6 MB), made on the spot; and a LoRA adapter for it.

It needs no download and proves the whole path; its answers are noise made of printable characters.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, LAYERS, HEADS, KV_HEADS, MLP = 256, 2, 4, 2, 512
HEAD_SIZE = HIDDEN // HEADS  # 64: vLLM's CPU attention refuses 16 at the first completion
MAX_LENGTH = 8192
SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
VOCABULARY = 256 + len(SPECIAL)

LORA_RANK = 8

CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_toy_model(folder: Path) -> bool:
    """Write the model into folder, all or nothing; True when it was made, False when it was there."""
    if (folder / "config.json").is_file():
        return False
    with _whole(folder) as partial:
        _write_tokenizer(partial)
        save_file(_weights(), partial / "model.safetensors", metadata={"format": "pt"})
        for name, content in _json_files().items():
            (partial / name).write_text(json.dumps(content, indent=1) + "\n")
    return True


def make_toy_adapter(folder: Path) -> bool:
    """Write a LoRA adapter of the toy model into folder, in PEFT's format; False when it was there."""
    if (folder / "adapter_config.json").is_file():
        return False
    random = np.random.default_rng(1)
    weights = {}
    for layer in range(LAYERS):
        for name, rows in (("q_proj", HEADS * HEAD_SIZE), ("v_proj", KV_HEADS * HEAD_SIZE)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}."
            # large enough that greedy answers differ from the base model's
            weights[prefix + "lora_A.weight"] = (random.standard_normal((LORA_RANK, HIDDEN)) * 0.2).astype(np.float16)
            weights[prefix + "lora_B.weight"] = (random.standard_normal((rows, LORA_RANK)) * 0.2).astype(np.float16)
    content = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": LORA_RANK, "lora_alpha": 2 * LORA_RANK,
               "target_modules": ["q_proj", "v_proj"], "bias": "none"}  # fmt: skip
    with _whole(folder) as partial:
        save_file(weights, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        (partial / "adapter_config.json").write_text(json.dumps(content, indent=1) + "\n")
    return True


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is renamed when all is in it."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in partial.iterdir():
        path.chmod(0o644)  # the engine runs as another user
    partial.rename(folder)


def _write_tokenizer(folder: Path) -> None:
    # Byte-level without merges: every text is representable, one token a byte.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: number for number, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))


def _weights() -> dict[str, np.ndarray[Any, np.dtype[np.float16]]]:
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int, scale: float = 0.05) -> np.ndarray[Any, np.dtype[np.float16]]:
        return (random.standard_normal((rows, columns)) * scale).astype(np.float16)

    ones = np.ones(HIDDEN, dtype=np.float16)
    weights = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN, 1.0), "model.norm.weight": ones}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        weights |= {
            prefix + "input_layernorm.weight": ones.copy(),
            prefix + "post_attention_layernorm.weight": ones.copy(),
            prefix + "self_attn.q_proj.weight": matrix(HEADS * HEAD_SIZE, HIDDEN),
            prefix + "self_attn.k_proj.weight": matrix(KV_HEADS * HEAD_SIZE, HIDDEN),
            prefix + "self_attn.v_proj.weight": matrix(KV_HEADS * HEAD_SIZE, HIDDEN),
            prefix + "self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD_SIZE),
            prefix + "mlp.gate_proj.weight": matrix(MLP, HIDDEN),
            prefix + "mlp.up_proj.weight": matrix(MLP, HIDDEN),
            prefix + "mlp.down_proj.weight": matrix(HIDDEN, MLP),
        }
    # Only printable ASCII gets a say: random bytes would be broken UTF-8, which streams as empty pieces.
    head = np.zeros((VOCABULARY, HIDDEN), dtype=np.float16)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [number for number, char in enumerate(alphabet) if "!" <= char <= "~"]
    head[printable] = matrix(len(printable), HIDDEN, 0.25)
    weights["lm_head.weight"] = head
    return weights


def _json_files() -> dict[str, Any]:
    begin, end = 256, 257
    return {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": MLP,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_SIZE,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": MAX_LENGTH,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": begin,
            "eos_token_id": end,
            "torch_dtype": "float16",
        },
        "generation_config.json": {"bos_token_id": begin, "eos_token_id": end},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[1],
            "model_max_length": MAX_LENGTH,
            "chat_template": CHAT_TEMPLATE,
        },
    }
