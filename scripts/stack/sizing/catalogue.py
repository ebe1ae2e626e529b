"""GPUs and constants, as data with their sources: gpus.yaml and constants.yaml beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stack.hardware import Gpu
from stack.sizing.errors import CannotPlanError
from stack.yaml_input import parsed

HERE = Path(__file__).parent
MIB = 1024**2
# Cards of one name differ in memory: two sizes of A100 are a factor of two apart, ECC on or off a few per cent.
MEMORY_TOLERANCE = 0.03


@dataclass(frozen=True)
class Card:
    """One kind of GPU. Memory in bytes, bandwidth and nvlink in bytes/s, rates in operations/s."""

    key: str
    names: tuple[str, ...]
    memory: int
    usable: int
    bandwidth: float
    rates: Mapping[str, float]
    capability: float
    nvlink: float | None
    source: str

    def __hash__(self) -> int:
        return hash(self.key)

    def computes(self, kind: str) -> bool:
        """Whether its tensor cores multiply numbers of this type."""
        return kind in self.rates

    @property
    def fp8_cache(self) -> bool:
        """Whether the attention kernels read e4m3 KV caches: vLLM refuses it below compute capability 8.9."""
        return self.capability >= 8.9


@cache
def cards() -> tuple[Card, ...]:
    """Every GPU that gpus.yaml names."""
    return tuple(_card(entry) for entry in parsed((HERE / "gpus.yaml").read_text())["gpus"])


def _card(entry: Mapping[str, Any]) -> Card:
    return Card(
        key=entry["key"],
        names=tuple(entry["names"]),
        memory=entry["memory_mib"] * MIB,
        usable=(entry["memory_mib"] - entry["reserved_mib"]) * MIB,
        bandwidth=entry["bandwidth"] * 1e9,
        rates={kind: value * 1e12 for kind, value in entry["tflops"].items()},
        capability=float(entry["capability"]),
        nvlink=entry["nvlink"] * 1e9 if entry["nvlink"] else None,
        source=entry["source"],
    )


@cache
def card_of(gpu: Gpu) -> Card:
    """The card of a GPU. Raises CannotPlanError for one that the catalogue does not have."""
    name = f" {gpu.model.lower()} "
    same_name = [card for card in cards() if all(word in name for word in card.names)]
    for card in same_name:
        if abs(gpu.memory_mib * MIB - card.memory) <= MEMORY_TOLERANCE * card.memory:
            return card
    if same_name:
        sizes = " or ".join(f"{card.memory // MIB}" for card in same_name)
        raise CannotPlanError(
            f"a {gpu.model} of {gpu.memory_mib} MiB is not known; known are {sizes} MiB (a MIG part?)"
        )
    raise CannotPlanError(f"the GPU {gpu.model!r} is not in the catalogue (scripts/stack/sizing/gpus.yaml)")


@cache
def _constants() -> Mapping[str, Mapping[str, Any]]:
    document: Mapping[str, Mapping[str, Any]] = parsed((HERE / "constants.yaml").read_text())
    return {part: {name: entry["value"] for name, entry in entries.items()} for part, entries in document.items()}


def constant(part: str, name: str) -> Any:
    """One value of constants.yaml."""
    return _constants()[part][name]


def sources() -> dict[str, str]:
    """``part.name`` -> where the constant is from."""
    document = parsed((HERE / "constants.yaml").read_text())
    return {f"{part}.{name}": entry["source"] for part, entries in document.items() for name, entry in entries.items()}
