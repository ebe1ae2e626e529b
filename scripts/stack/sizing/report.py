"""The reasons of a plan, for machines: plain data, memory in bytes, rates in tokens a second."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stack.sizing.candidates import Candidate
from stack.sizing.catalogue import sources
from stack.sizing.explain import notes
from stack.sizing.resolve import Sized


def sized_dict(sized: Sized) -> dict[str, Any]:
    """One model on one host: what was chosen and from what; ``not_planned`` says why where nothing was."""
    found: dict[str, Any] = {
        "served_model_name": sized.model.served_model_name,
        "auto": list(sized.auto),
        "not_planned": sized.why,
        "card": asdict(sized.card) if sized.card else None,
        "notes": notes(sized),
    }
    if sized.known is not None:
        shape, weights = sized.known.shape, sized.known.weights
        found["model"] = {
            "architecture": shape.architecture,
            "parameters": shape.parameters,
            "active_parameters": shape.active,
            "weights": weights.total,
            "weights_estimated": weights.estimated,
            "max_length": shape.max_length,
        }
    if sized.choice is not None:
        found["chosen"] = _candidate(sized.choice.chosen)
        found["considered"] = [_candidate(way) for way in sized.choice.considered]
        found["reasons"] = list(sized.choice.reasons)
        found["warnings"] = list(sized.choice.warnings)
        found["constants"] = sources()
    return found


def _candidate(way: Candidate) -> dict[str, Any]:
    memory = way.memory
    parts = ("usable", "requested", "weights", "activations", "graphs", "non_torch", "nccl", "kv_cache", "headroom")
    return {
        "tensor_parallel_size": way.size,
        "replicas": way.replicas,
        "fits": way.fits,
        "setting": asdict(memory.setting),
        "memory": {part: getattr(memory, part) for part in parts},
        "kv_cache_tokens": memory.tokens if way.fits else 0,
        "max_concurrency": round(memory.concurrency, 2) if way.fits else 0.0,
        "room": way.room if way.fits else 0,
        "speeds": [asdict(speed) for speed in way.speeds],
        "ttft_all_at_once": way.ttft,
        "tokens_per_second": way.total,
    }
