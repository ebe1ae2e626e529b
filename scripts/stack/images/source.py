"""Where a stack's images come from: what its file says, and what `auto` means."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import requests
import yaml

from stack.config.schema import Images
from stack.images.pins import Source
from stack.yaml_input import parsed

# The one stack file whose `auto` may build, and what the Makefile exports when nobody named a STACK.
EMBEDDED = Path("compose/examples/cpu.yaml")
BY_DEFAULT = "STACK_BY_DEFAULT"
HUB = "registry-1.docker.io"
PROBE_S = 4.0


def source_of(settings: Images, stack: Path, root: Path, known: Path) -> Source:
    """The source that a stack file means. known: where remember() keeps an earlier answer."""
    if settings.source != "auto":
        return settings.source
    if not _may_build(settings, stack, root):
        return "registry"
    if known.is_file():
        # decided on the first `make up`: asking the registry each time could change a running stack's images
        return "build" if (parsed(known.read_text()) or {}).get("source") == "build" else "registry"
    return choose_source(settings.mirror)


def remember(source: Source, settings: Images, stack: Path, root: Path, known: Path) -> None:
    """Keep what `auto` was found to mean."""
    if _may_build(settings, stack, root):
        known.write_text(yaml.safe_dump({"source": source}))


def _may_build(settings: Images, stack: Path, root: Path) -> bool:
    """Whether a registry that does not answer is no error: only for the example that make chose by itself."""
    by_default = bool(os.environ.get(BY_DEFAULT)) and stack.resolve() == (root / EMBEDDED).resolve()
    return settings.source == "auto" and by_default


def choose_source(mirror: str | None, answers: Callable[[str], bool] | None = None) -> Source:
    """What `auto` means: the registry where it answers within 4 s, else images built here."""
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
