"""Models of tests/models/ as the planner knows them, cards of the catalogue, and wishes in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

from stack.sizing.architecture import shape_of
from stack.sizing.catalogue import Card, cards
from stack.sizing.files import Known
from stack.sizing.memory import Setting
from stack.sizing.shapes import Shape
from stack.sizing.weights import weights_of
from stack.sizing.wishes import Objective, Wish
from stacks import ROOT

MODELS = ROOT / "tests/models"
NAMES = sorted(path.stem for path in MODELS.glob("*.json"))
GIB = 1024**3


@cache
def fixture(name: str) -> dict[str, Any]:
    """A fixture's whole document: model, kind (recorded or constructed), source, config."""
    document: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text())
    return document


def config(name: str) -> dict[str, Any]:
    """The config.json of a fixture."""
    value: dict[str, Any] = fixture(name)["config"]
    return value


@cache
def shape(name: str) -> Shape:
    """The shape of a fixture."""
    return shape_of(config(name), f"{name}/config.json")


@cache
def known(name: str) -> Known:
    """A fixture with weights estimated from its config.json."""
    return Known(shape(name), weights_of(shape(name), None))


def card(key: str) -> Card:
    """A card of the catalogue."""
    return next(card for card in cards() if card.key == key)


def setting(size: int = 1, length: int = 8192, seqs: int = 256, batched: int = 2048, util: float = 0.9) -> Setting:
    """An engine's flags."""
    return Setting(size, length, seqs, batched, util)


OPEN = Wish(
    tensor_parallel_size=None,
    replicas=None,
    max_model_len=None,
    max_num_seqs=None,
    max_num_batched_tokens=0,
    gpu_memory_utilization=None,
    kv_cache_dtype="auto",
    prefix_caching=True,
    eager=False,
    objective=Objective("throughput"),
)


def wish(**keys: Any) -> Wish:
    """Everything left open but these."""
    return replace(OPEN, **keys)
