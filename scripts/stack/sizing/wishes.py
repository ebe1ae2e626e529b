"""What a person asks of a model: numbers that are fixed, numbers left to the plan, and what it is to be good at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stack.config.fields import AUTO
from stack.config.model import Model, PromisedSpeed

# What one request is taken to be where stack.yaml does not say: a page of text in, a paragraph out.
PROMPT_TOKENS, ANSWER_TOKENS = 1024, 256
# Requests that all replicas of a model are to work on at once, where stack.yaml does not say.
CONCURRENCY = 32
# A context that is left to the plan is not cut below this (or the model's own) only to save a GPU.
WANTED_CONTEXT = 16384


@dataclass(frozen=True)
class Objective:
    """Times in seconds, rates in tokens a second."""

    kind: Literal["throughput", "latency", "slo"]
    concurrency: int = CONCURRENCY
    prompt_tokens: int = PROMPT_TOKENS
    answer_tokens: int = ANSWER_TOKENS
    ttft_p99: float | None = None
    tokens_per_second_per_user: float | None = None

    @property
    def request(self) -> int:
        """Tokens of one request, prompt and answer."""
        return self.prompt_tokens + self.answer_tokens


@dataclass(frozen=True)
class Wish:
    """One model's keys of stack.yaml; None is left to the plan, 0 to the engine (its own maximum, its own default)."""

    tensor_parallel_size: int | None
    replicas: int | None
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    gpu_memory_utilization: float | None
    kv_cache_dtype: str
    prefix_caching: bool
    eager: bool
    objective: Objective


def wish_of(model: Model) -> Wish:
    """The wish of a model."""
    return Wish(
        tensor_parallel_size=_number(model.tensor_parallel_size),
        replicas=_number(model.replicas),
        max_model_len=_number(model.max_model_len),
        max_num_seqs=_number(model.max_num_seqs),
        max_num_batched_tokens=_number(model.max_num_batched_tokens),
        gpu_memory_utilization=None if model.gpu_memory_utilization == AUTO else model.gpu_memory_utilization,
        kv_cache_dtype=model.kv_cache_dtype,
        prefix_caching=model.enable_prefix_caching,
        eager="--enforce-eager" in model.extra_args,
        objective=_objective(model.objective),
    )


def _number(value: int | None) -> int | None:
    return None if value == AUTO else value or 0


def _objective(said: Literal["throughput", "latency"] | PromisedSpeed) -> Objective:
    if isinstance(said, PromisedSpeed):
        return Objective(
            "slo", said.concurrency, said.prompt_tokens, said.answer_tokens,
            said.ttft_p99, said.tokens_per_second_per_user,
        )  # fmt: skip
    return Objective(said)
