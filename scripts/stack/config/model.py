"""A model, its adapters, and what is promised of it: the section `models` of stack.yaml."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from stack.config.fields import ModelName, OrAuto, Section
from stack.config.owned_flags import free_flags
from stack.config.source import Source


def _flag(value: str) -> str:
    if any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in value):
        raise ValueError("control characters in a flag")
    return value


Flag = Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_flag)]


class LoraAdapter(Section):
    """One LoRA adapter of a model: clients name it like a model, and the same replicas answer."""

    name: ModelName
    source: Source


class PromisedSpeed(Section):
    """What users are promised, and the load it is promised for. Seconds, tokens a second."""

    ttft_p99: float | None = Field(None, gt=0.0, le=3600.0)
    tokens_per_second_per_user: float | None = Field(None, gt=0.0, le=10_000.0)
    concurrency: int = Field(32, ge=1, le=100_000)
    prompt_tokens: int = Field(1024, ge=1, le=100_000_000)
    answer_tokens: int = Field(256, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _some_goal(self) -> PromisedSpeed:
        if self.ttft_p99 is None and self.tokens_per_second_per_user is None:
            raise ValueError("give ttft_p99, tokens_per_second_per_user, or both")
        return self


class Model(Section):
    """One model and the pool of replicas that serves it. Keys are spelled as vLLM spells its flags."""

    served_model_name: ModelName
    source: Source
    objective: Literal["throughput", "latency"] | PromisedSpeed = "throughput"
    replicas: Annotated[int, Field(ge=1, le=4096), OrAuto] = 1
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64), OrAuto] = 1
    nnodes: int = Field(1, ge=1, le=16)
    pipeline_parallel_size: int = Field(1, ge=1, le=16)
    task: Literal["generate", "embed"] = "generate"
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"
    max_model_len: Annotated[int, Field(ge=1, le=100_000_000), OrAuto] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=65536), OrAuto] = 256
    max_num_batched_tokens: Annotated[int, Field(ge=1, le=1_000_000), OrAuto] | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0), OrAuto] = 0.90
    kv_cache_dtype: Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    enable_prefix_caching: bool = True
    balancing: Literal["prefix_affinity", "least_connections"] = "prefix_affinity"
    max_queue: int = Field(256, ge=1, le=100_000)
    queue_timeout: int = Field(30, ge=1, le=3600)
    max_unavailable: int = Field(1, ge=0, le=4096)
    quantization: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")] | None = None
    lora_adapters: tuple[LoraAdapter, ...] = Field((), max_length=64, strict=False)
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    cpu_kvcache_space: int = Field(4, ge=1, le=4096)
    memory_limit_gib: int | None = Field(None, ge=1, le=1_000_000)
    cpu_limit: float | None = Field(None, ge=0.1, le=4096)
    shutdown_timeout: int = Field(60, ge=1, le=3600)
    startup_timeout: int = Field(1800, ge=10, le=86400)
    extra_args: Annotated[tuple[Flag, ...], AfterValidator(free_flags)] = Field((), max_length=200, strict=False)

    @property
    def gpus_of_a_host(self) -> int:
        """GPUs of one engine on each host that it spans."""
        return self.tensor_parallel_size * self.pipeline_parallel_size // self.nnodes
