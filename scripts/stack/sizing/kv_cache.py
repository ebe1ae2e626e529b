"""How many tokens fit into so many bytes: vLLM's own grouping of layers, pages and blocks.

After vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py of 0.32.0, for the layouts that keep layers apart
(the default of every backend but a few connectors).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from stack.sizing.catalogue import constant
from stack.sizing.shapes import Layer, Shape

# Bytes of one cached element. fp8 caches keep one scale a tensor, which is nothing.
CACHE_BYTES = {"auto": None, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True)
class Group:
    """Layers of one kind that share a block table. page: bytes one layer of it keeps in one block on one GPU."""

    layer: Layer
    layers: int
    page: int
    block_size: int


@dataclass(frozen=True)
class CacheLayout:
    """How one GPU's KV cache is cut. bytes_per_block: of all layers of the largest group."""

    groups: tuple[Group, ...]
    bytes_per_block: int
    prefix_caching: bool

    def blocks_per_request(self, length: int, batched_tokens: int) -> int:
        """Blocks that one request of ``length`` tokens holds at most, over all groups."""
        return sum(_blocks(group, length, batched_tokens, self.prefix_caching) for group in self.groups)

    def tokens(self, memory: int, length: int, batched_tokens: int) -> int:
        """What the engine's log calls "GPU KV cache size": whole requests of ``length`` that fit, times length."""
        return int(self.concurrency(memory, length, batched_tokens) * length)

    def concurrency(self, memory: int, length: int, batched_tokens: int) -> float:
        """Requests of ``length`` tokens that fit at once ("Maximum concurrency" in the log)."""
        blocks = max(memory, 0) // self.bytes_per_block
        return blocks / self.blocks_per_request(length, batched_tokens)

    def bytes_per_request(self, length: int, batched_tokens: int) -> int:
        """Memory of one request of ``length`` tokens."""
        return self.blocks_per_request(length, batched_tokens) * self.bytes_per_block


def cache_layout(
    shape: Shape,
    size: int,
    cache_dtype: str = "auto",
    *,
    prefix_caching: bool = True,
    block_size: int | None = None,
    hybrid_manager: bool = True,
) -> CacheLayout:
    """The layout on each of ``size`` GPUs. hybrid_manager: False where vLLM turns it off (the CPU)."""
    width = CACHE_BYTES[cache_dtype] or shape.bytes_per_weight
    block = block_size or constant("engine", "block_size")
    attention = [(layer, count) for layer, count in shape.layers if layer.kind != "state"]
    states = [(layer, count) for layer, count in shape.layers if layer.kind == "state"]
    if states:
        block = _block_for_states(states, attention, size, width, shape.bytes_per_weight, block)
    pages = [(layer, count, _page(layer, size, width, block)) for layer, count in attention]
    largest = max(page for _, _, page in pages)
    pages += [(layer, count, largest) for layer, count in states]
    if not hybrid_manager:
        pages = _as_full(pages)
    if len({layer.kind for layer, _, _ in pages} | {layer.window for layer, _, _ in pages}) <= 2 and len(pages) == 1:
        (layer, count, page) = pages[0]
        return CacheLayout((Group(layer, count, page, block),), count * page, prefix_caching)
    return _grouped(pages, largest, block, prefix_caching)


def _page(layer: Layer, size: int, width: int, block: int) -> int:
    # more GPUs than heads: each keeps a copy of one head; latent vectors are on every GPU
    heads = max(1, layer.kv_heads // size)
    return block * heads * (layer.key_size + layer.value_size) * width


def _as_full(pages: list[tuple[Layer, int, int]]) -> list[tuple[Layer, int, int]]:
    layer, _, page = pages[0]
    full = Layer("full", layer.kv_heads, layer.key_size, layer.value_size)
    return [(full, sum(count for _, count, _ in pages), page)]


def _grouped(pages: list[tuple[Layer, int, int]], page: int, block: int, prefix_caching: bool) -> CacheLayout:
    # _get_kv_cache_groups_uniform_page_size: groups as long as the smallest kind, or the largest where they are close
    smallest, most = min(count for _, count, _ in pages), max(count for _, count, _ in pages)
    length = most if most < smallest * 1.5 else smallest
    groups = [
        Group(layer, length, page, block) for layer, count, _ in pages for _ in range(ceil(count / length))
    ]  # fmt: skip
    return CacheLayout(tuple(groups), length * page, prefix_caching)


def _block_for_states(
    states: list[tuple[Layer, int]],
    attention: list[tuple[Layer, int]],
    size: int,
    width: int,
    own_width: int,
    block: int,
) -> int:
    # platforms/interface.py _align_hybrid_block_size: a page of tokens at least as large as a state
    per_token = max(_page(layer, size, width, 1) for layer, _ in attention)
    state = max(state_bytes(layer, size, own_width) for layer, _ in states)
    return block * ceil(state / (block * per_token))


def state_bytes(layer: Layer, size: int, own_width: int) -> int:
    """Bytes of one recurrent layer's state on one of ``size`` GPUs."""
    return sum(ceil(part.elements / min(size, part.shared_by)) * (part.bytes_each or own_width) for part in layer.state)


def _blocks(group: Group, length: int, batched_tokens: int, prefix_caching: bool) -> int:
    kind = group.layer.kind
    if kind == "state":
        return 2 if prefix_caching else 1
    if kind == "sliding":
        in_flight: int = batched_tokens * constant("engine", "concurrent_batches")
        kept = min(group.layer.window - 1 + in_flight, length)
        return ceil(kept / group.block_size) + 1
    return ceil(length / group.block_size)
