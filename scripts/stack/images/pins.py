"""Which images the project runs: compose/images.yaml with the digests of compose/images.lock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stack.errors import InputError, Problem
from stack.images.lock import LOCK, read_lock
from stack.yaml_input import parsed

Source = Literal["registry", "archive", "build"]
Device = Literal["cpu", "cuda"]

PINS = Path("compose/images.yaml")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"v?\d+\.\d+\.\d+[A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ImagePin:
    """One image: repository:tag at a registry, its digest once known, and the folder that builds a stand-in.

    cuda: major version of the CUDA that it was built on, where it is one for GPUs and that is known.
    devices: those whose stacks run it. optional: where images are built, a stack does without one that has no `build`.
    """

    repository: str
    tag: str
    digest: str | None
    build: str | None
    cuda: int | None = None
    devices: tuple[Device, ...] = ("cpu", "cuda")
    optional: bool = False

    @property
    def reference(self) -> str:
        """repository:tag, the key in images.lock."""
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Build:
    """One folder under compose/images: the Debian suite it starts from, the version its tag shows."""

    suite: str
    version: str


@dataclass(frozen=True)
class Pins:
    """compose/images.yaml with the digests of images.lock.

    vllm: device -> pin. roles: every other role -> pin. builds: folder -> Build.
    """

    vllm_version: str
    vllm: Mapping[Device, ImagePin]
    roles: Mapping[str, ImagePin]
    builds: Mapping[str, Build]

    def of(self, device: Device) -> dict[str, ImagePin]:
        """Role -> pin, for engines on this device."""
        return {"vllm": self.vllm[device], **{role: pin for role, pin in self.roles.items() if device in pin.devices}}

    def buildable(self, device: Device) -> dict[str, ImagePin]:
        """Those of a stack whose images are built here: without optional ones that nothing builds."""
        return {role: pin for role, pin in self.of(device).items() if pin.build or not pin.optional}

    def less(self, roles: frozenset[str]) -> Pins:
        """Without these roles."""
        return replace(self, roles={role: pin for role, pin in self.roles.items() if role not in roles})

    def all(self) -> list[ImagePin]:
        """Every pin, sorted by reference."""
        return sorted([*self.vllm.values(), *self.roles.values()], key=lambda pin: pin.reference)


def load_pins(root: Path) -> Pins:
    """Pins of the project at root; an image that images.lock does not name has no digest yet.

    Raises InputError naming every floating tag and every bad digest.
    """
    document = parsed((root / PINS).read_text())
    lock = read_lock(root)
    version = str(document["version"])
    problems: list[Problem] = []

    def pin(entry: Mapping[str, Any]) -> ImagePin:
        tag = str(entry["tag"]).format(version=version)
        reference = f"{entry['repository']}:{tag}"
        digest = lock.get(reference)
        if not _TAG.fullmatch(tag):
            what = "the tag does not name one release; give a full version such as 1.2.3"
            problems.append(Problem(reference, what))
        if digest is not None and not DIGEST.fullmatch(str(digest)):
            what = f"digest {digest!r} in {LOCK} is neither null nor sha256:<64 hex digits>"
            problems.append(Problem(reference, f"{what}; put null there, and `make lock` asks for it"))
        return ImagePin(
            entry["repository"],
            tag,
            digest,
            entry.get("build"),
            entry.get("cuda"),
            tuple(entry.get("devices", ("cpu", "cuda"))),
            entry.get("optional", False),
        )

    images = dict(document["images"])
    vllm = images.pop("vllm")
    pins = Pins(
        vllm_version=version,
        vllm={"cuda": pin(vllm["cuda"]), "cpu": pin(vllm["cpu"])},
        roles={role: pin(entry) for role, entry in images.items()},
        builds={
            name: Build(entry["suite"], str(entry["version"]).format(version=version))
            for name, entry in document["builds"].items()
        },
    )
    if problems:
        raise InputError(str(PINS), problems)
    return pins
