"""Every way to serve one model on so many equal GPUs, with its memory and its speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from stack.sizing.catalogue import MIB, Card, constant
from stack.sizing.memory import Memory, Setting, longest, memory_of
from stack.sizing.roofline import BATCHES, Speed, decode, prefill
from stack.sizing.shapes import Shape
from stack.sizing.weights import Weights
from stack.sizing.wishes import Wish

SIZES = (1, 2, 4, 8, 16, 32, 64)
BUSY = BATCHES[-1]


@dataclass(frozen=True)
class Candidate:
    """Replicas of one size. ttft: seconds for a prompt when every request of a replica arrives at once."""

    size: int
    replicas: int
    memory: Memory
    speeds: tuple[Speed, ...]
    ttft: float
    needed: int  # requests at once that each replica is asked to hold
    batch: Speed  # speed at that many
    request: int  # tokens of the request that room is counted in

    @property
    def fits(self) -> bool:
        """Whether its engines start."""
        return self.memory.fits

    @property
    def room(self) -> int:
        """Requests of the expected length that one replica's cache holds, and its engine works on."""
        return min(self.memory.room(self.request), self.memory.setting.max_num_seqs)

    @property
    def busy(self) -> float:
        """Tokens a second of all replicas when each works on BUSY requests."""
        return self.replicas * self.speeds[-1].total

    @property
    def total(self) -> float:
        """Tokens a second of all replicas at the largest batch that was asked for, or fits."""
        return self.replicas * self.batch.total


def sizes(shape: Shape, gpus: int) -> list[int]:
    """Tensor parallel sizes that vLLM takes for this model on at most so many GPUs."""
    return [size for size in SIZES if size <= gpus and divides(shape, size)]


def divides(shape: Shape, size: int) -> bool:
    """vLLM splits attention heads evenly; heads of keys evenly, or copies them evenly."""
    heads = shape.kv_heads
    return shape.heads % size == 0 and (heads % size == 0 or size % heads == 0)


def candidates(shape: Shape, weights: Weights, card: Card, gpus: int, wish: Wish) -> Iterator[Candidate]:
    """One candidate for each size that is possible, smallest first, whether it fits or not."""
    for size in [wish.tensor_parallel_size] if wish.tensor_parallel_size else sizes(shape, gpus):
        replicas = wish.replicas or max(1, gpus // size)
        if size * replicas <= gpus or wish.replicas:
            yield candidate(shape, weights, card, size, replicas, wish)


def candidate(shape: Shape, weights: Weights, card: Card, size: int, replicas: int, wish: Wish) -> Candidate:
    """One way, its open numbers filled in: context first, then sequences."""
    memory = _memory(shape, weights, card, size, wish, replicas)
    objective, setting = wish.objective, memory.setting
    context = min(objective.request, setting.max_model_len)
    needed = max(1, ceil(objective.concurrency / replicas))
    batch = max(1, min(needed, setting.max_num_seqs, memory.room(context) if memory.fits else needed))
    halfway = min(objective.prompt_tokens + objective.answer_tokens // 2, context)
    cache = setting.kv_cache_dtype
    speeds = tuple(decode(shape, weights, card, size, number, halfway, cache) for number in BATCHES)
    at_batch = decode(shape, weights, card, size, batch, halfway, cache)
    ttft = batch * prefill(shape, card, size, min(objective.prompt_tokens, context)) + 1 / at_batch.per_user
    return Candidate(size, replicas, memory, speeds, ttft, needed, at_batch, request=context)


def _memory(shape: Shape, weights: Weights, card: Card, size: int, wish: Wish, replicas: int) -> Memory:
    setting = Setting(
        tensor_parallel_size=size,
        max_model_len=wish.max_model_len or shape.max_length,
        max_num_seqs=wish.max_num_seqs or default_seqs(card),
        max_num_batched_tokens=wish.max_num_batched_tokens or default_batched_tokens(card),
        gpu_memory_utilization=wish.gpu_memory_utilization or constant("engine", "gpu_memory_utilization"),
        kv_cache_dtype=wish.kv_cache_dtype,
        prefix_caching=wish.prefix_caching,
        eager=wish.eager,
    )
    setting = replace(setting, max_num_batched_tokens=_chunk(shape, card, size, wish, setting))
    memory = memory_of(shape, weights, card, setting)
    if wish.max_model_len is None:
        length = longest(memory, shape.max_length) or min(shape.max_length, wish.objective.request)
        memory = replace(memory, setting=replace(setting, max_model_len=length))
    if wish.max_num_seqs is None and memory.fits:
        seqs = _sequences(shape, weights, card, wish, memory)
        memory = memory_of(shape, weights, card, replace(memory.setting, max_num_seqs=seqs))
    return memory


def _sequences(shape: Shape, weights: Weights, card: Card, wish: Wish, memory: Memory) -> int:
    # no more than the cache holds, and with a goal for each user no more than the memory's bandwidth allows
    objective, setting = wish.objective, memory.setting
    length = min(objective.request, setting.max_model_len)
    most = max(1, min(setting.max_num_seqs, memory.room(length)))
    goal = objective.tokens_per_second_per_user
    while goal and most > 1:
        speed = decode(shape, weights, card, setting.tensor_parallel_size, most, length, setting.kv_cache_dtype)
        if speed.per_user >= goal:
            break
        most = most * 9 // 10
    return most if most < 16 else most // 8 * 8


def _chunk(shape: Shape, card: Card, size: int, wish: Wish, setting: Setting) -> int:
    # a chunk of someone's prompt delays every running answer by its own time
    goal = wish.objective.tokens_per_second_per_user
    if wish.max_num_batched_tokens is not None or not goal:
        return setting.max_num_batched_tokens
    fast = [n for n in (8192, 4096, 2048, 1024, 512) if prefill(shape, card, size, n) <= 1 / goal]
    return min(setting.max_num_batched_tokens, fast[0] if fast else 512)


def default_seqs(card: Card) -> int:
    """vLLM's own default for an API server: vllm/engine/arg_utils.py get_batch_defaults."""
    return 1024 if _large(card) else 256


def default_batched_tokens(card: Card) -> int:
    """Likewise; an A100 takes small chunks although its memory is large (vllm PR 17885)."""
    if card.usable >= 160 * 1024 * MIB:
        return 16384
    return 8192 if _large(card) else 2048


def _large(card: Card) -> bool:
    return card.usable >= 70 * 1024 * MIB and "a100" not in card.key
