"""One replica's command line and environment, spelled as vLLM spells them. Checked by vLLM's own parser in tests."""

from __future__ import annotations

from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.plan.fleet_types import Part

ENTRYPOINT = ("python3", "-m", "vllm.entrypoints.openai.api_server")
FOLLOWER_ENTRYPOINT = ("python3", "/stack/headless.py")
PORT = 8000
MODEL_MOUNT = "/model"
ADAPTERS_MOUNT = "/adapters"
CACHE_MOUNT = "/home/vllm"
# with the API key: neither in argv nor in the environment, and vLLM's log shows `api_key: '***'`
SECRET_CONFIG = "/run/secrets/engine.yaml"

# uvicorn closes idle connections after 5 s by default, the gateway keeps them longer and would
# send a request into a closing connection (vllm-project/vllm PR 18472).
KEEP_ALIVE_SECONDS = 120


def argv(config: StackConfig, model: Model, part: Part | None = None) -> tuple[str, ...]:
    """Arguments after ENTRYPOINT, in a fixed order; the user's extra_args come last. part: of a replica over hosts."""
    arguments = [
        "--host", part.leader if part else "0.0.0.0",
        "--port", str(part.port if part else PORT),
        "--model", MODEL_MOUNT,
        "--served-model-name", model.served_model_name,
        "--dtype", model.dtype,
        "--max-num-seqs", str(model.max_num_seqs),
        "--tensor-parallel-size", str(model.tensor_parallel_size),
        "--enable-prefix-caching" if model.enable_prefix_caching else "--no-enable-prefix-caching",
        "--shutdown-timeout", str(model.shutdown_timeout),
        "--config", SECRET_CONFIG,
    ]  # fmt: skip
    if model.max_model_len is not None:
        arguments += ["--max-model-len", str(model.max_model_len)]
    if model.max_num_batched_tokens is not None:
        arguments += ["--max-num-batched-tokens", str(model.max_num_batched_tokens)]
    if model.kv_cache_dtype != "auto":
        arguments += ["--kv-cache-dtype", model.kv_cache_dtype]
    if config.device == "cuda":
        arguments += ["--gpu-memory-utilization", f"{model.gpu_memory_utilization:g}"]
    if model.quantization is not None:
        arguments += ["--quantization", model.quantization]
    if model.task == "embed":
        arguments += ["--runner", "pooling"]
    if model.lora_adapters:
        # as many at once in a batch as there are: else requests for different adapters wait for each other
        arguments += ["--enable-lora", "--max-loras", str(len(model.lora_adapters))]
        arguments += ["--max-lora-rank", str(model.max_lora_rank), "--lora-modules"]
        arguments += [f"{each.name}={ADAPTERS_MOUNT}/{place}" for place, each in enumerate(model.lora_adapters)]
    if part:
        arguments += ["--pipeline-parallel-size", str(model.pipeline_parallel_size), "--nnodes", str(model.nnodes)]
        arguments += ["--node-rank", str(part.rank), "--master-addr", part.leader]
        arguments += ["--master-port", str(part.master_port), *(["--headless"] if part.rank else [])]
    return (*arguments, *model.extra_args)


def environment(config: StackConfig, model: Model, part: Part | None = None) -> dict[str, str]:
    """Environment of one replica, or of a part of it."""
    variables = {
        "DO_NOT_TRACK": "1",
        "GLOO_SOCKET_IFNAME": "lo",  # its processes are all in one container: 14 ports less on the network
        "HF_HUB_OFFLINE": "1",  # the model is on disk, and there is no route out
        "HOME": CACHE_MOUNT,
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CACHE_ROOT": f"{CACHE_MOUNT}/.cache/vllm",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_SECONDS),
        "VLLM_NO_USAGE_STATS": "1",
        "XDG_CACHE_HOME": f"{CACHE_MOUNT}/.cache",
    }
    if config.device == "cpu":
        # vLLM binds its threads to the machine's first cores: those of every engine to the same ones, the others idle.
        # There a new engine got 1 s of CPU in 7 minutes, as another's worker waits by yielding (Linux 6.18).
        unbound = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "passive"}
        variables |= {"VLLM_CPU_KVCACHE_SPACE": str(model.cpu_kvcache_space), **unbound}
    else:
        # CDI gives the engine its GPUs. CUDA images ask for all of them, and a Docker whose default runtime is NVIDIA's
        # would obey.
        variables["NVIDIA_VISIBLE_DEVICES"] = "void"
    return variables | (_of_part(part) if part else {})


def _of_part(part: Part) -> dict[str, str]:
    """Each of the three tells the other parts the address that it listens on: it has to be the private one."""
    return {
        "GLOO_SOCKET_IFNAME": part.interface,
        "NCCL_SOCKET_FAMILY": "AF_INET",
        "NCCL_SOCKET_IFNAME": f"={part.interface}",  # this one, not all that begin so
        "VLLM_HOST_IP": part.address,
        # for the health check: where requests are answered, and where a follower finds its leader
        **(
            {"LEADER": f"{part.leader}:{part.master_port}"}
            if part.rank
            else {"ENGINE_ADDRESS": part.address, "ENGINE_PORT": str(part.port)}
        ),
    }
