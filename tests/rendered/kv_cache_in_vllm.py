"""Runs inside the engine's image: vLLM's own grouping of layers and its own count of tokens, for cases on stdin.

A case: layers as the planner sees them, memory, length and batched tokens. The answer: groups, bytes a block, tokens.
"""

import json
import sys
from types import SimpleNamespace

import torch
from vllm.v1.core import kv_cache_utils as utils
from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec, MLAAttentionSpec, SlidingWindowSpec
from vllm.v1.kv_cache_layout import KVCacheLayout


def spec(layer, case):
    """The spec that vLLM's model code makes of such a layer."""
    block, kind = case["block_size"], layer["kind"]
    if kind == "state":
        state = (layer["state_bytes"],)
        return MambaSpec(block, (state,), (torch.uint8,), page_size_padded=layer["page"], mamba_cache_mode="align")
    heads = max(1, layer["kv_heads"] // case["size"])
    common = {"block_size": block, "num_kv_heads": heads, "head_size": layer["key_size"], "dtype": torch.bfloat16}
    if kind == "latent":
        return MLAAttentionSpec(**common)
    if kind == "sliding":
        return SlidingWindowSpec(**common, sliding_window=layer["window"], dcp_sharded=False)
    return FullAttentionSpec(**common)


def answer(case):
    """What vLLM says of one case."""
    layout = KVCacheLayout.LBNHC
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        cache_config=SimpleNamespace(
            get_resolved_kv_cache_layout=lambda: layout,
            num_gpu_blocks_override=None,
            mamba_cache_mode="align",
            prefix_cache_retention_interval=0,
        ),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1, tensor_parallel_size=case["size"]),
        model_config=SimpleNamespace(max_model_len=case["length"]),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
        kv_transfer_config=None,
        max_in_flight_tokens=2 * case["batched_tokens"],
    )
    specs = {f"layers.{index}": spec(layer, case) for index, layer in enumerate(case["layers"])}
    groups = utils.get_kv_cache_groups(config, specs)
    made = utils.get_kv_cache_config_from_groups(config, groups, case["memory"])
    tokens, concurrency = utils.get_kv_cache_capacity(config, made)
    return {"groups": len(groups), "blocks": made.num_blocks, "tokens": tokens, "concurrency": concurrency}


print("ANSWERS " + json.dumps([answer(case) for case in json.load(sys.stdin)]))
