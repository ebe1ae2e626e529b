"""Makes every image a stack needs present on this machine: pulled, loaded from an archive, or built."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import docker
import docker.errors

from stack.config.schema import Images
from stack.errors import StackError
from stack.images import carry, registry
from stack.images.build import Builder, need_debootstrap
from stack.images.carry import present
from stack.images.choice import archive_path, base_reference, built_name, built_reference, choose
from stack.images.lock import LOCK
from stack.images.pins import Device, Source, load_pins
from stack.progress import CancelledError, Progress

PULLS_AT_ONCE = 3
Say = Callable[[str], None]


def provide(
    root: Path,
    settings: Images,
    source: Source,
    device: Device,
    say: Say,
    client: docker.DockerClient,
    unwanted: frozenset[str] = frozenset(),
) -> list[str]:
    """Make a stack's images present; what was missing, sorted. The running stack does not notice.

    Images of a registry that have no digest yet get one first, recorded in images.lock. say: takes progress lines
    (at least one every 5 s while something is slow). unwanted: as choose() has it. Raises StackError when an image
    cannot be had: the message names it and what to do. Nothing half-made keeps a tag.
    """
    if source == "registry":
        _resolve(root, settings, device, say, client, unwanted)
    references = choose(root, settings, source, device, unwanted).references
    if source == "archive":
        return carry.load(archive_path(root, settings), set(references.values()), say, client)
    return ensure(references, source, root, say, client)


def ensure(refs: dict[str, str], source: Source, root: Path, say: Say, client: docker.DockerClient) -> list[str]:
    """Pull or build what is missing of role -> reference; see provide()."""
    missing = sorted({ref for ref in refs.values() if not present(client, ref)})
    if not missing:
        return []
    with Progress(say) as progress:
        if source == "registry":
            _pull_all(missing, client, progress)
        else:
            _build_all(missing, root, client, progress)
    return missing


def _resolve(
    root: Path, settings: Images, device: Device, say: Say, client: docker.DockerClient, unwanted: frozenset[str]
) -> None:
    unresolved = [pin for pin in load_pins(root).less(unwanted).of(device).values() if pin.digest is None]
    if not unresolved:
        return
    found, failed = registry.ask_digests(client, unresolved, settings.mirror)
    if failed:
        raise StackError("\n".join([*failed.values(), "Nothing was pulled; the same command run again goes on."]))
    lock = registry.record(root, found)
    for reference in found:
        say(f"{LOCK}: {reference} is {lock[reference]}, recorded at its first use; commit it")


def _pull_all(missing: Iterable[str], client: docker.DockerClient, progress: Progress) -> None:
    with ThreadPoolExecutor(PULLS_AT_ONCE) as pool:
        _finish([pool.submit(registry.pull, reference, client, progress) for reference in missing], progress)


def _build_all(missing: list[str], root: Path, client: docker.DockerClient, progress: Progress) -> None:
    pins = load_pins(root)
    names = [built_name(reference) for reference in missing]
    for name, reference in zip(names, missing, strict=True):
        if name not in pins.builds or built_reference(root, pins, name) != reference:
            raise StackError(f"{reference} is not what compose/images/{name} builds now: render again")
    suites = [pins.builds[name].suite for name in names]
    # The largest image first: the others fit in beside it. Not in /tmp, which may be small or forbid devices.
    names.sort(key=lambda name: (name != "vllm-cpu", name))
    parent = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="vllm-onprem-images-", dir=parent) as folder:
        builder = Builder(root, pins, client, progress, Path(folder))
        builder.check_space(names)
        need_debootstrap(progress, Path(folder) / "apt.log")
        with ThreadPoolExecutor(2 * len(names) + 2) as pool:
            contexts = {name: pool.submit(builder.context, name) for name in names}
            bases = {
                suite: pool.submit(builder.base, suite)
                for suite in sorted(set(suites))
                if not present(client, base_reference(root, suite))
            }
            images = [
                pool.submit(_build, builder, name, bases.get(pins.builds[name].suite), contexts[name]) for name in names
            ]
            _finish([*contexts.values(), *bases.values(), *images], progress)


def _build(builder: Builder, name: str, base: Future[None] | None, context: Future[Path]) -> None:
    if base:
        base.result()
    if builder.has_system_stage(name):
        builder.system_stage(name)
    builder.image(name, context.result())


def _finish(futures: Iterable[Future[Any]], progress: Progress) -> None:
    """Wait for all; on the first failure (or an interrupt) stop the rest and raise what failed first."""
    pending = list(futures)
    try:
        wait(pending, return_when=FIRST_EXCEPTION)
    finally:
        progress.cancel()
        wait(pending)
    errors = [error for future in pending if (error := future.exception())]
    for error in [error for error in errors if not isinstance(error, CancelledError)] or errors:
        raise error
