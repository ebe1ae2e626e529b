"""Which image each role runs, from compose/images.yaml and compose/images.lock."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import requests
import yaml

from stack.errors import InputError, StackError

Source = Literal["registry", "build"]
Device = Literal["cpu", "cuda"]

PINS = Path("compose/images.yaml")
LOCK = Path("compose/images.lock")
FOLDER = Path("compose/images")
BUILT = "vllm-onprem"
HUB = "registry-1.docker.io"
PROBE_S = 4.0

_TAG = re.compile(r"v?\d+\.\d+\.\d+[A-Za-z0-9._-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImagePin:
    """One image: repository:tag at a registry, its digest once known, and the folder that builds a stand-in.

    devices: those whose stacks run it.
    """

    repository: str
    tag: str
    digest: str | None
    build: str | None
    devices: tuple[Device, ...] = ("cpu", "cuda")

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

    def all(self) -> list[ImagePin]:
        """Every pin, sorted by reference."""
        return sorted([*self.vllm.values(), *self.roles.values()], key=lambda pin: pin.reference)


def load_pins(root: Path) -> Pins:
    """Pins of the project at root. Raises InputError naming every floating tag, missing or bad digest."""
    document = yaml.safe_load((root / PINS).read_text())
    lock = yaml.safe_load((root / LOCK).read_text()) or {}
    version = str(document["version"])
    problems: list[str] = []

    def pin(entry: Mapping[str, Any]) -> ImagePin:
        tag = str(entry["tag"]).format(version=version)
        reference = f"{entry['repository']}:{tag}"
        digest = lock.get(reference)
        if not _TAG.fullmatch(tag):
            problems.append(f"{reference}: the tag does not name one release; give a full version such as 1.2.3")
        if reference not in lock:
            problems.append(f"{reference}: not in {LOCK}; add it there with null")
        elif digest is not None and not _DIGEST.fullmatch(str(digest)):
            problems.append(f"{reference}: digest {digest!r} in {LOCK} is neither null nor sha256:<64 hex digits>")
        return ImagePin(
            entry["repository"], tag, digest, entry.get("build"), tuple(entry.get("devices", ("cpu", "cuda")))
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
        raise InputError(str(PINS), "\n  ".join(["", *problems]) if len(problems) > 1 else problems[0])
    return pins


def references(root: Path, pins: Pins, source: Source, device: Device, mirror: str | None = None) -> dict[str, str]:
    """Role -> image reference.

    registry: [mirror/]repository:tag[@digest]. build: vllm-onprem/<folder>:<version>-<content hash>, so that
    a changed folder is a new tag and an existing tag needs no build. Raises InputError for building on cuda.
    """
    if source == "registry":
        prefix = f"{mirror.rstrip('/')}/" if mirror else ""
        return {
            role: f"{prefix}{pin.reference}" + (f"@{pin.digest}" if pin.digest else "")
            for role, pin in pins.of(device).items()
        }
    chosen: dict[str, str] = {}
    for role, pin in pins.of(device).items():
        if pin.build is None:
            raise InputError(
                "images.source",
                f"'build' cannot make the {role} image for device {device}: {pin.reference} is only pulled; "
                "use registry, with images.mirror where Docker Hub is out of reach",
            )
        chosen[role] = built_reference(root, pins, pin.build)
    return chosen


def built_reference(root: Path, pins: Pins, name: str) -> str:
    """Reference of the image that compose/images/<name> builds."""
    build = pins.builds[name]
    digest = content_hash([root / FOLDER / "base", root / FOLDER / name], build.suite)
    return f"{BUILT}/{name}:{build.version}-{digest}"


def base_reference(root: Path, suite: str) -> str:
    """Reference of the base image of one Debian suite."""
    return f"{BUILT}/base:{suite}-{content_hash([root / FOLDER / 'base'], suite)}"


def content_hash(folders: list[Path], salt: str = "") -> str:
    """12 hex digits of the paths and bytes of every file in the folders; hidden files do not count."""
    total = hashlib.sha256(salt.encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith((".", "__")) for part in name.parts):
                content = path.read_bytes()
                total.update(f"\0{name.as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:12]


def choose_source(
    requested: Literal["auto", "registry", "build"],
    device: Device,
    mirror: str | None = None,
    answers: Callable[[str], bool] | None = None,
) -> Source:
    """The source to use. auto asks the registry (up to 4 s) and builds when it does not answer.

    On cuda auto means registry: a GPU host must never fall back to another engine in silence.
    """
    if requested != "auto":
        return requested
    if device == "cuda":
        return "registry"
    host = mirror.split("/", 1)[0] if mirror else HUB
    return "registry" if (answers or registry_answers)(host) else "build"


def registry_answers(host: str) -> bool:
    """True when a registry speaks at host[:port]; 401 is an answer too, a proxy's own error page is not."""
    schemes = ["https", "http"] if host.split(":", maxsplit=1)[0] in ("localhost", "127.0.0.1") else ["https"]
    for scheme in schemes:
        try:
            answer = requests.get(f"{scheme}://{host}/v2/", timeout=PROBE_S, allow_redirects=False)
        except requests.RequestException:
            continue
        if answer.status_code in (200, 401) or "docker-distribution-api-version" in answer.headers:
            return True
    return False


def built_name(reference: str) -> str:
    """The folder under compose/images that a built reference comes from. Raises StackError for any other."""
    match = re.fullmatch(rf"{BUILT}/([a-z0-9-]+):.+", reference)
    if not match:
        raise StackError(f"{reference} is not an image that is built here")
    return match.group(1)
