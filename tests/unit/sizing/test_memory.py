"""Where the memory goes: sums, limits, and properties that hold for every model, card and flag."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stack.hardware import Gpu
from stack.sizing.candidates import candidate, divides
from stack.sizing.catalogue import Card, card_of, cards, constant
from stack.sizing.errors import CannotPlanError
from stack.sizing.families import FAMILIES
from stack.sizing.memory import Memory, Setting, activations, graphs, longest, memory_of
from stack.sizing.roofline import decode, prefill
from stack.sizing.weights import weights_of
from unit.sizing.fixtures import GIB, NAMES, card, config, known, setting, shape, wish

PLANNED = [name for name in NAMES if config(name)["architectures"][0] in FAMILIES]
# Bounded, so that the unit tests stay fast; no example database beside the sources.
FEW = settings(max_examples=60, deadline=None, database=None)
MODELS = st.sampled_from(PLANNED)
CARDS = st.sampled_from(cards())
SIZES = st.sampled_from([1, 2, 4, 8])
LENGTHS = st.integers(1, 2_000_000)
SEQS = st.integers(1, 2048)
UTILS = st.floats(0.05, 1.0)


def memory(name: str, kind: Card, flags: Setting) -> Memory:
    return memory_of(known(name).shape, known(name).weights, kind, flags)


def test_the_parts_add_up_to_what_the_engine_may_take() -> None:
    found = memory("llama-3.1-8b", card("a100-80-sxm"), setting(util=0.92))
    parts = found.weights + found.activations + found.graphs + found.non_torch + found.nccl + found.kv_cache
    assert parts == found.requested
    assert found.requested + found.headroom == found.usable
    # facts of the bench notes: 52 to 56 GiB, 426,000 to 459,000 tokens
    assert 52 < found.kv_cache / GIB < 56
    assert 426_000 < found.tokens < 459_000


def test_eager_engines_capture_no_graphs() -> None:
    flags = replace(setting(), eager=True)
    assert memory("llama-3.1-8b", card("a100-80-sxm"), flags).graphs == 0


def test_graphs_are_as_many_as_vllm_captures() -> None:
    """51 batch sizes piecewise up to 512, 35 for decoding up to 256: a public log of 0.19.1."""
    per_layer = graphs(shape("qwen3-8b"), setting(seqs=256, batched=2048)) / 36
    assert per_layer == pytest.approx((51 + 35) * constant("gpu", "graph_bytes_per_layer"), rel=0.001)


def test_an_image_encoder_takes_memory() -> None:
    sees = shape("gemma-3-12b")
    tiny = replace(setting(seqs=1, batched=16), eager=True)
    assert activations(sees, tiny) > activations(replace(sees, vision=None), tiny)
    blind = weights_of(replace(sees, vision=None), None)
    assert known("gemma-3-12b").weights.total - blind.total == pytest.approx(2 * 416e6, rel=0.01)


def test_compiled_engines_measure_kernels_on_a_table_of_their_own() -> None:
    """Rows 15 to 17: peaks of 0.32, 1.29 and 1.10 GiB. Eager engines do not, nor those that are given their rows."""
    table = shape("qwen3-8b").embedding * 2
    flags = setting(batched=2048)
    assert activations(shape("qwen3-8b"), flags) == table + 2 * 2048 * 4096 * 2
    assert activations(shape("qwen3-8b"), replace(flags, eager=True)) < table
    assert activations(shape("qwen3-8b"), replace(flags, tensor_parallel_size=4)) < table
    sees = replace(shape("qwen3-8b"), vision=shape("gemma-3-12b").vision)
    assert activations(sees, flags) < table


def test_the_sampler_keeps_counts_for_each_sequence() -> None:
    few, many = (memory("qwen3-8b", card("h200"), setting(seqs=seqs)).non_torch for seqs in (1, 257))
    assert many - few == pytest.approx(256 * 151936 * 4.125, abs=1)


@FEW
@given(MODELS, CARDS, SIZES, LENGTHS, SEQS, UTILS)
def test_never_over_the_memory_never_negative(
    name: str, kind: Card, size: int, length: int, seqs: int, util: float
) -> None:
    found = memory(name, kind, setting(size, length, seqs, 2048, util))
    parts = [found.weights, found.activations, found.graphs, found.non_torch, found.nccl]
    assert all(part >= 0 for part in parts)
    assert sum(parts) + found.kv_cache == found.requested <= found.usable
    assert found.tokens >= 0
    assert found.concurrency >= 0
    if found.fits:
        needed = found.layout.bytes_per_request(length, 2048)
        assert needed <= found.kv_cache
        assert found.concurrency >= 1
        assert found.room(length) >= 1


@FEW
@given(MODELS, CARDS, SIZES, LENGTHS, LENGTHS)
def test_a_longer_context_never_fits_more_requests(name: str, kind: Card, size: int, one: int, other: int) -> None:
    short, long = sorted((one, other))
    shorter, longer = (memory(name, kind, setting(size, length)) for length in (short, long))
    assert shorter.concurrency >= longer.concurrency
    assert shorter.fits or not longer.fits


@FEW
@given(MODELS, CARDS, SIZES, SEQS, SEQS)
def test_more_sequences_never_leave_more_cache(name: str, kind: Card, size: int, one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert memory(name, kind, setting(size, seqs=few)).kv_cache >= memory(name, kind, setting(size, seqs=many)).kv_cache


@FEW
@given(MODELS, CARDS, LENGTHS)
def test_more_gpus_never_hold_fewer_tokens_each(name: str, kind: Card, length: int) -> None:
    """All but the buffers of the collectives shrinks; on real cards they are far less than the weights they save."""
    model = known(name)
    sizes = [size for size in (1, 2, 4, 8) if divides(model.shape, size)]
    found = [memory(name, kind, setting(size, length)) for size in sizes]
    slack = max(each.nccl for each in found)
    for less, more in pairwise(found):
        assert more.kv_cache >= less.kv_cache - slack
        assert more.weights <= less.weights


@FEW
@given(MODELS, CARDS, SIZES, st.integers(1, 4096), st.integers(1, 4096))
def test_a_step_is_never_faster_for_more_requests(name: str, kind: Card, size: int, one: int, other: int) -> None:
    model = known(name)
    few, many = sorted((one, other))
    slow, fast = (decode(model.shape, model.weights, kind, size, batch, 2048) for batch in (many, few))
    assert fast.per_user >= slow.per_user > 0
    assert slow.total >= fast.total * 0.999


@FEW
@given(MODELS, CARDS, st.integers(1, 100_000), st.integers(1, 100_000))
def test_a_longer_prompt_never_takes_less_time(name: str, kind: Card, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert 0 < prefill(shape(name), kind, 1, short) <= prefill(shape(name), kind, 1, long)


@FEW
@given(MODELS, CARDS, SIZES, LENGTHS)
def test_the_longest_context_fits_and_a_longer_one_does_not(name: str, kind: Card, size: int, most: int) -> None:
    found = memory(name, kind, setting(size, most))
    length = longest(found, most)
    if length:
        assert replace(found, setting=setting(size, length)).fits
    if length < most:
        assert not replace(found, setting=setting(size, min(length + 1024, most))).fits


@FEW
@given(MODELS, CARDS, SIZES)
def test_what_is_left_open_is_filled_in_to_fit(name: str, kind: Card, size: int) -> None:
    model = known(name)
    found = candidate(model.shape, model.weights, kind, size, 1, wish())
    flags = found.memory.setting
    assert 1 <= flags.max_num_seqs <= 1024
    assert 1 <= flags.max_model_len <= model.shape.max_length
    if found.fits:
        assert found.memory.fits


@pytest.mark.parametrize(
    ("model", "memory_mib", "key"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80-sxm"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40-sxm"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80-pcie"),
        ("NVIDIA A100-PCIE-40GB", 40960, "a100-40-pcie"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-sxm"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA B200", 183359, "b200"),
        ("NVIDIA L4", 23034, "l4"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA A10", 23028, "a10"),
        ("Tesla T4", 15360, "t4"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx-4090"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "rtx-pro-6000-blackwell"),
    ],
)
def test_a_card_is_known_by_the_name_and_memory_of_its_driver(model: str, memory_mib: int, key: str) -> None:
    assert card_of(Gpu(uuid="GPU-00000000", model=model, memory_mib=memory_mib)).key == key


@pytest.mark.parametrize(
    ("model", "memory_mib", "words"),
    [
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9856, "of 9856 MiB is not known"),
        ("NVIDIA A16", 15356, "'NVIDIA A16' is not in the catalogue"),
        ("NVIDIA GeForce GTX 1080", 8192, "is not in the catalogue"),
        ("NVIDIA L40", 46068, "is not in the catalogue"),
        ("NVIDIA A100X", 81920, "is not in the catalogue"),
    ],
)
def test_a_card_that_is_not_known_is_not_guessed(model: str, memory_mib: int, words: str) -> None:
    with pytest.raises(CannotPlanError, match=words):
        card_of(Gpu(uuid="GPU-00000000", model=model, memory_mib=memory_mib))


def test_every_card_says_what_it_cannot_do() -> None:
    cannot = {entry.key for entry in cards() if not entry.computes("fp8")}
    assert {"a100-80-sxm", "a100-40-sxm", "a10", "t4"} <= cannot
    assert not {"h100-sxm", "l4", "l40s", "b200"} & cannot
    assert {entry.key for entry in cards() if not entry.fp8_cache} == cannot
    assert not card("t4").computes("bf16")
    assert all(entry.source and 0 < entry.usable < entry.memory for entry in cards())
