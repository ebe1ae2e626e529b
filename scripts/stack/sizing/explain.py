"""The reasons of a plan, for a person: a table of what was considered, and a bar of each GPU's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stack.console import coloured, table
from stack.sizing.candidates import Candidate
from stack.sizing.catalogue import Card
from stack.sizing.memory import Memory
from stack.sizing.resolve import Sized
from stack.sizing.roofline import compute_kind
from stack.sizing.shapes import Shape

GIB = 1024**3
BAR = 60
# What fills a bar, by its letter: the same in colours and without.
PARTS = (
    ("W", "weights", "weights", "bold"),
    ("a", "activations", "activations", "yellow"),
    ("g", "CUDA graphs", "graphs", "yellow"),
    ("n", "non-torch", "non_torch", "yellow"),
    ("c", "NCCL", "nccl", "yellow"),
    ("K", "KV cache", "kv_cache", "green"),
    (".", "left alone", "headroom", ""),
)


def sized_text(sized: Sized, engines: Sequence[Mapping[str, Any]]) -> str:
    """One model's part of `make plan`. engines: those of the plan that serve it."""
    name = sized.model.served_model_name
    if sized.choice is None or sized.known is None:
        return f"{name}: not planned: {sized.why}"
    chosen = sized.choice.chosen
    lines = [f"{name}: {_what(sized)}"]
    lines += [f"  because {reason}" for reason in sized.choice.reasons]
    lines += [coloured(f"  warning: {warning}", "red") for warning in sized.choice.warnings]
    lines += [f"  note: {note}" for note in notes(sized)]
    if sized.card is None:
        return "\n".join([*lines, f"  KV cache: {chosen.memory.tokens} tokens, {_full(chosen.memory)}"])
    lines += [
        "",
        indent(ways(sized.choice.considered, chosen)),
        "",
        indent(basis(sized.known.shape, sized.card, chosen)),
    ]
    line, means = bar(chosen.memory)
    lines += ["", f"  {means}", f"  {chosen.memory.tokens} tokens in each replica, {_full(chosen.memory)}"]
    lines += [f"  {line}  {gpu} {engine['name']}" for engine in engines for gpu in engine["gpus"]]
    return "\n".join(lines)


def _what(sized: Sized) -> str:
    assert sized.choice is not None
    chosen = sized.choice.chosen
    setting = chosen.memory.setting
    card = f" on {sized.card.key}" if sized.card else ""
    values = {
        "max_model_len": setting.max_model_len,
        "max_num_seqs": setting.max_num_seqs,
        "max_num_batched_tokens": setting.max_num_batched_tokens,
        "gpu_memory_utilization": setting.gpu_memory_utilization,
        "kv_cache_dtype": setting.kv_cache_dtype,
    }
    said = ", ".join(f"{key} {value}{'*' * (key in sized.auto)}" for key, value in values.items())
    star = "   (* chosen by the plan)" if sized.auto else ""
    many = "*" * ("replicas" in sized.auto or "tensor_parallel_size" in sized.auto)
    return f"{chosen.replicas} x TP{chosen.size}{many}{card}, {said}{star}"


def notes(sized: Sized) -> list[str]:
    """What a person should know of the model and the card: estimates, and what the architecture cannot do."""
    if sized.known is None:
        return []
    shape, weights, card = sized.known.shape, sized.known.weights, sized.card
    found = [f"weights: {weights.total / GIB:.2f} GiB, {weights.how}", *shape.notes]
    rule = shape.quantization
    if card is not None and rule is not None and rule.activations not in {"bf16", compute_kind(shape, card)}:
        found.append(
            f"{card.key} (compute capability {card.capability}) has no {rule.activations} tensor cores: weights are"
            f" stored in {rule.bits} bits and multiplied in 16"
        )
    if card is not None and not card.fp8_cache:
        found.append(f"KV cache stays in 16 bits: e4m3 needs compute capability 8.9, {card.key} has {card.capability}")
    if shape.vision is not None:
        found.append("memory of the image encoder is that of one image of the largest size")
    return found


def ways(considered: Sequence[Candidate], chosen: Candidate) -> str:
    """Every candidate: what fits, and tokens a second at rising batch sizes."""
    rates = [f"tok/s at {speed.batch}" for speed in chosen.speeds]
    head = ["", "way", "KV tokens/replica", "x full length", "room", *rates, "all, as asked", "all, at 64 each"]
    rows = []
    for way in considered:
        mark = ">" if way is chosen else " "
        if not way.fits:
            rows.append([mark, f"{way.replicas} x TP{way.size}", "does not fit", *[""] * (len(head) - 3)])
            continue
        memory = way.memory
        rows.append([
            mark, f"{way.replicas} x TP{way.size}", f"{memory.tokens}", f"{memory.concurrency:.2f}", f"{way.room}",
            *(f"{speed.total:.0f}" for speed in way.speeds), f"{way.total:.0f}",
            f"{way.busy:.0f}",
        ])  # fmt: skip
    return table(head, rows)


def basis(shape: Shape, card: Card, chosen: Candidate) -> str:
    """The figures that the speeds rest on."""
    kind = compute_kind(shape, card)
    link = f"NVLink {card.nvlink / 1e9:.0f} GB/s" if card.nvlink else "PCIe between GPUs"
    return (
        f"roofline: {card.bandwidth / 1e9:.0f} GB/s x 0.8, {card.rates[kind] / 1e12:.0f} TFLOPS {kind} x 0.5, {link};"
        f" {shape.active / 1e9:.2f} B of {shape.parameters / 1e9:.2f} B parameters read for each token\n"
        f"  ({card.source})\n"
        "tok/s: one replica, an upper bound for decoding alone; all: every replica together\n"
        f"as asked: {chosen.batch.batch} requests at once in each of the replicas chosen"
    )


def bar(memory: Memory) -> tuple[str, str]:
    """One GPU's memory as a line of letters, and what they mean."""
    sizes = [max(getattr(memory, key), 0) for _, _, key, _ in PARTS]
    total = sum(sizes) or 1
    line, done = "", 0
    for (letter, _, _, colour), size in zip(PARTS, sizes, strict=True):
        done += size
        part = letter * (round(done / total * BAR) - round((done - size) / total * BAR))
        line += coloured(part, colour) if colour and part else part
    means = "  ".join(
        f"{letter} {name} {size / GIB:.2f}" for (letter, name, _, _), size in zip(PARTS, sizes, strict=True) if size
    )
    return f"[{line}]", f"{means}  (GiB of {memory.usable / GIB:.2f} on each GPU)"


def _full(memory: Memory) -> str:
    return f"{memory.concurrency:.2f} requests of the full {memory.setting.max_model_len} at once"


def indent(text: str) -> str:
    """Every line two to the right."""
    return "\n".join(f"  {line}" for line in text.splitlines())
