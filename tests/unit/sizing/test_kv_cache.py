"""Pages, groups and blocks of the KV cache, against vLLM 0.32.0's own rules and published counts."""

from __future__ import annotations

import pytest

from stack.sizing.kv_cache import cache_layout, state_bytes
from unit.sizing.fixtures import GIB, shape

KIB = 1024


@pytest.mark.parametrize(
    ("name", "size", "per_token"),
    [
        ("llama-3.1-8b", 1, 128 * KIB),
        ("llama-3.1-8b", 8, 16 * KIB),
        ("llama-3.1-8b", 16, 16 * KIB),  # more GPUs than heads: copies
        ("llama-2-7b", 1, 512 * KIB),
        ("llama-3.1-405b", 8, 126 * 2 * 128 * 2),
        ("falcon-7b", 1, 32 * 2 * 64 * 2),  # one head for all
        ("deepseek-v3", 1, 61 * 576 * 2),
        ("deepseek-v3", 8, 61 * 576 * 2),  # latent: on every GPU whole
        ("qwen3-235b-fp8", 4, 94 * 2 * 128 * 2),
    ],
)
def test_bytes_of_one_token_on_one_gpu(name: str, size: int, per_token: int) -> None:
    layout = cache_layout(shape(name), size)
    assert len(layout.groups) == 1
    assert layout.bytes_per_block == 16 * per_token


def test_small_caches_take_half() -> None:
    plain, small = (cache_layout(shape("llama-3.1-8b"), 1, dtype) for dtype in ("auto", "fp8"))
    assert plain.bytes_per_block == 2 * small.bytes_per_block
    assert small.tokens(GIB, 8192, 2048) == pytest.approx(2 * plain.tokens(GIB, 8192, 2048), rel=0.01)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("gemma-3-12b", {"sliding": 5, "full": 1}),  # 40 and 8 layers: groups of 8
        ("gpt-oss-20b", {"sliding": 1, "full": 1}),
        ("gemma-2-9b", {"sliding": 1, "full": 1}),
        ("olmo-3.1-32b", {"sliding": 3, "full": 1}),
        ("qwen3-next-80b-a3b", {"state": 3, "full": 1}),
    ],
)
def test_layers_of_several_kinds_are_grouped_as_vllm_groups_them(name: str, groups: dict[str, int]) -> None:
    layout = cache_layout(shape(name), 1)
    kinds = [group.layer.kind for group in layout.groups]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == groups
    assert len({group.layers * group.page for group in layout.groups}) == 1


def test_a_windows_blocks_stop_growing_with_the_context() -> None:
    layout = cache_layout(shape("gemma-3-12b"), 1)
    long, longer = (layout.blocks_per_request(length, 2048) for length in (65536, 131072))
    assert longer - long == 65536 // 16  # the one full group alone
    # window 1024 - 1 and two batches of 2048 in flight, one block more for where it starts
    assert long == 65536 // 16 + 5 * (-(-(1023 + 4096) // 16) + 1)


def test_a_short_request_does_not_fill_the_window() -> None:
    layout = cache_layout(shape("gpt-oss-20b"), 1)
    assert layout.blocks_per_request(32, 2048) == 2 + 3


def test_pages_of_tokens_grow_to_the_size_of_a_state() -> None:
    """Qwen3-Next: 2 heads of 256 in 16 bits are 2 KiB a token; one state is 32 x 128 x 128 and its convolution."""
    model = shape("qwen3-next-80b-a3b")
    state = next(layer for layer, _ in model.layers if layer.kind == "state")
    assert state_bytes(state, 1, 2) == (3 * (2 * 16 * 128 + 32 * 128) + 32 * 128 * 128) * 2
    layout = cache_layout(model, 1)
    block = layout.groups[-1].block_size
    assert (block - 16) * 2 * KIB < state_bytes(state, 1, 2) <= block * 2 * KIB
    assert {group.page for group in layout.groups} == {block * 2 * KIB}


def test_a_state_takes_as_many_blocks_however_long_the_request() -> None:
    model = shape("nemotron-h-56b")
    for caching, blocks in ((True, 2), (False, 1)):
        layout = cache_layout(model, 1, prefix_caching=caching)
        states = [group for group in layout.groups if group.layer.kind == "state"]
        full = [group for group in layout.groups if group.layer.kind == "full"]
        length = full[0].block_size
        assert layout.blocks_per_request(length, 2048) == blocks * len(states) + len(full)


def test_the_cpu_keeps_all_tokens_of_all_layers() -> None:
    layout = cache_layout(shape("gpt-oss-20b"), 1, block_size=128, hybrid_manager=False)
    assert [group.layers for group in layout.groups] == [24]
    assert layout.bytes_per_block == 128 * 24 * 2 * 8 * 64 * 2


def test_float32_states_are_wider() -> None:
    """Nemotron-H keeps its state in float32, its convolution in the model's type."""
    state = next(layer for layer, _ in shape("nemotron-3-nano-30b-a3b").layers if layer.kind == "state")
    assert state_bytes(state, 1, 2) == 3 * (64 * 64 + 2 * 8 * 128) * 2 + 64 * 64 * 128 * 4
    assert state_bytes(state, 2, 2) == state_bytes(state, 1, 2) // 2
