"""vLLM's flags that extra_args may not give, as a key of the stack file or the plan sets them."""

from __future__ import annotations

# vLLM flags that the plan sets itself: given again in extra_args, the last one would win unseen.
OWNED_FLAGS = {
    "--model": "source",
    "--served-model-name": "served_model_name",
    "--dtype": "dtype",
    "--max-model-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--enable-prefix-caching": "enable_prefix_caching",
    "--no-enable-prefix-caching": "enable_prefix_caching",
    "--quantization": "quantization",
    "-q": "quantization",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--kv-cache-dtype": "kv_cache_dtype",
    "-tp": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "-pp": "pipeline_parallel_size",
    "--data-parallel-size": None,  # these need GPUs that the plan does not count
    "-dp": None,
    "--prefill-context-parallel-size": None,
    "--nnodes": "nnodes",
    "-n": "nnodes",
    "--headless": None,
    "--node-rank": None,
    "-r": None,
    "--master-addr": None,
    "--master-port": None,
    "--shutdown-timeout": "shutdown_timeout",
    "--runner": "task",
    "--enable-lora": "lora_adapters",
    "--no-enable-lora": "lora_adapters",
    "--lora-modules": "lora_adapters",
    "--max-loras": "lora_adapters",
    "--max-lora-rank": "max_lora_rank",
    "--host": None,
    "--port": None,
    "--uds": None,
    "--api-key": None,
    "--ssl-keyfile": None,
    "--ssl-certfile": None,
    "--config": None,
    "--hf-token": "hub.token_file",  # engines fetch nothing, and a flag is no place for a secret
}


def free_flags(value: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments as they are. Raises ValueError for one that a key or the plan sets."""
    for argument in value:
        owned = _owned_flag(argument.split("=", 1)[0])
        if owned:
            key = OWNED_FLAGS[owned]
            what = f"set the key {key}" if key else "the stack sets this flag itself"
            raise ValueError(f"{argument.split('=', 1)[0]} is not free: {what}")
    return value


def _owned_flag(flag: str) -> str | None:
    # vLLM's parser also takes underscores for dashes, a flag's beginning for the flag, and -tp2 for -tp 2
    if flag.startswith("--"):
        flag = "--" + flag[2:].replace("_", "-")
        return next((owned for owned in OWNED_FLAGS if len(flag) > 3 and owned.startswith(flag)), None)
    short = [owned for owned in OWNED_FLAGS if not owned.startswith("--")]
    return next((owned for owned in short if flag.startswith(owned)), None)
