"""The whole of stack.yaml, and its sections about where things are: images, hub, paths."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stack.config.fields import FilePath, Name, Section
from stack.config.gateway import Gateway
from stack.config.model import Model
from stack.config.observability import Observability


def _mirror(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*", value):
        raise ValueError("a registry address such as registry.example.org:5000/mirror")
    host = value.split("/", 1)[0]
    if not (set(host) & set(".:") or host == "localhost"):
        raise ValueError(f"Docker takes {host!r} for a user of Docker Hub: give the registry's full name or its port")
    return value


def _hub_mirror(value: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[\w.-]+)*/?", value):
        raise ValueError("the address of a hub such as https://hub.example.org, without user or password")
    return value.rstrip("/")


class Images(Section):
    """Where container images come from; compose/images.yaml says which."""

    # auto: compose/examples/cpu.yaml as `make` runs it by itself; anywhere else the same as registry
    source: Literal["registry", "archive", "build", "auto"] = "registry"
    mirror: Annotated[str, AfterValidator(_mirror)] | None = None
    archive: FilePath | None = None


class Hub(Section):
    """Where models that are named by a hub id are fetched from, and what opens gated ones."""

    mirror: Annotated[str, AfterValidator(_hub_mirror)] | None = None
    token_file: FilePath | None = None


class Paths(Section):
    """Folders on the host; relative ones start at the project's folder."""

    state: FilePath = ".state"
    build: FilePath = "build"


class StackConfig(Section):
    """What one stack.yaml says. Frozen; equal files give equal objects."""

    name: Name = "vllm-onprem"
    device: Literal["cuda", "cpu"] = "cuda"
    models: tuple[Model, ...] = Field(min_length=1, max_length=64, strict=False)
    gateway: Gateway = Gateway()
    observability: Observability = Observability()
    images: Images = Images()
    hub: Hub = Hub()
    paths: Paths = Paths()

    @property
    def images_unwanted(self) -> frozenset[str]:
        """Roles of images that this stack does without, as its file turns them off, or not on."""
        wanted = {"grafana": self.observability.grafana.enabled, "fluent_bit": self.observability.log_shipping}
        return frozenset(role for role, on in wanted.items() if not on)
