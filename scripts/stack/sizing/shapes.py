"""The shape of a model, as far as memory and speed depend on it. Counts are of the whole model, not of a rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["full", "sliding", "chunked", "latent", "state"]


@dataclass(frozen=True)
class StatePart:
    """One part of a recurrent layer's state: elements a layer, the type that holds them, and how ranks share it."""

    elements: int
    bytes_each: int | None  # None: the model's own type
    shared_by: int  # ranks beyond this many hold copies


@dataclass(frozen=True)
class Layer:
    """What one layer keeps of the tokens it has seen.

    full: keys and values of all tokens; sliding: of the last ``window``; chunked: of the current chunk (window);
    latent: one vector of ``key_size`` elements that every rank holds; state: a fixed state, whatever the length.
    """

    kind: Kind
    kv_heads: int = 0
    key_size: int = 0
    value_size: int = 0
    window: int = 0
    state: tuple[StatePart, ...] = ()


@dataclass(frozen=True)
class Experts:
    """The routed experts of one layer: how many there are, and work on one token."""

    count: int
    per_token: int
    size: int  # intermediate size of one expert


@dataclass(frozen=True)
class Quantization:
    """How the weights of linear layers are kept. bits: of one weight; group: weights that share a scale."""

    method: str
    bits: int
    group: int = 0
    activations: str = "bf16"  # what the tensor cores multiply on a card that can: bf16, fp8, int8, fp4
    attention_too: bool = True
    on_load: bool = False  # the files hold 16 bits, the engine rounds them


@dataclass(frozen=True)
class Vision:
    """An encoder for images: weights and the largest item, in patches, for its activations."""

    parameters: int
    hidden: int
    intermediate: int
    patches: int


@dataclass(frozen=True)
class Shape:
    """One model. ``linear`` and ``experts_total`` are parameters of linear layers; ``rest`` are norms, biases, routers.

    active: parameters that one token's step reads and multiplies, without the embedding table.
    """

    architecture: str
    hidden: int
    vocabulary: int
    heads: int
    kv_heads: int
    layers: tuple[tuple[Layer, int], ...]
    depth: int  # all layers, also those that keep nothing
    max_length: int
    bytes_per_weight: int
    embedding: int
    head: int
    linear: int
    experts: int
    expert_layers: int
    routed: Experts | None
    rest: int
    widest: int  # elements a token of the widest intermediate in a forward pass
    quantization: Quantization | None = None
    vision: Vision | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def layer_count(self) -> int:
        """Layers that keep something of the tokens."""
        return sum(count for _, count in self.layers)

    @property
    def parameters(self) -> int:
        """All weights of the language model."""
        return self.embedding + self.head + self.linear + self.experts + self.rest

    @property
    def active(self) -> int:
        """Weights that one token is multiplied with."""
        share = self.routed.per_token / self.routed.count if self.routed else 0.0
        return self.linear + round(self.experts * share) + (self.head or self.embedding)
