"""Makes every image a stack needs present on this machine: pulled, or built where no registry answers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from stack.errors import StackError
from stack.image_build import Builder, need_debootstrap
from stack.images import Source, base_reference, built_name, built_reference, load_pins
from stack.progress import CancelledError, Progress

PULLS_AT_ONCE = 3


def ensure(
    refs: dict[str, str],
    source: Source,
    root: Path,
    say: Callable[[str], None],
    client: docker.DockerClient,
) -> list[str]:
    """Pull or build what is missing of role -> reference; returns the references made, sorted.

    say: takes progress lines (at least one every 5 s while something is slow). Raises StackError when an image
    cannot be had: the message names it and what to do. Nothing half-made keeps a tag.
    """
    missing = sorted({ref for ref in refs.values() if not present(client, ref)})
    if not missing:
        return []
    with Progress(say) as progress:
        if source == "registry":
            _pull_all(missing, client, progress)
        else:
            _build_all(missing, root, client, progress)
    return missing


def present(client: docker.DockerClient, reference: str) -> bool:
    """True when the engine holds this image."""
    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        return False
    return True


def _pull_all(missing: Iterable[str], client: docker.DockerClient, progress: Progress) -> None:
    with ThreadPoolExecutor(PULLS_AT_ONCE) as pool:
        _finish([pool.submit(_pull, reference, client, progress) for reference in missing], progress)


def _pull(reference: str, client: docker.DockerClient, progress: Progress) -> None:
    name, _, digest = reference.partition("@")
    repository, _, tag = name.rpartition(":")
    layers: dict[str, bool] = {}
    error = ""
    with progress.step(reference, "pull"):
        try:
            for event in client.api.pull(repository, tag=digest or tag, stream=True, decode=True):
                if progress.cancelled.is_set():
                    raise CancelledError(f"{reference}: stopped, as something else failed")
                error = error or str(event.get("error", ""))
                status = str(event.get("status", ""))
                if event.get("id") and "Pulling from" not in status:
                    layers[event["id"]] = status in ("Pull complete", "Already exists")
                    progress.detail(reference, f"pull, {sum(layers.values())} of {len(layers)} layers")
        except (docker.errors.DockerException, requests.RequestException) as failure:
            error = str(failure)
        if error:
            raise StackError(
                f"image {reference} could not be pulled: {error}\n  See that this host reaches the registry "
                "(images.mirror names another one) and that it holds this tag; a machine without a GPU can build a "
                "stand-in: --source build"
            )
        if digest:  # the engine keeps no tag for a pull by digest; `docker images` should show which it is
            client.api.tag(f"{repository}@{digest}", repository, tag)


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
