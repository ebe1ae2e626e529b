"""What Docker's engine is told by a registry: digests and images. Credentials are those of Docker's own store.

The engine asks, never this process: its proxies, its trusted certificates and its mirrors are in force. Docker's SDK
reads ~/.docker/config.json (auths, credHelpers, credsStore) and hands the engine what it finds there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import docker.errors
import requests

from stack.errors import StackError
from stack.images.choice import at
from stack.images.lock import LOCK, Lock, change_lock
from stack.images.pins import DIGEST, ImagePin
from stack.progress import CancelledError, Progress

ASKED_AT_ONCE = 8

# First match wins: what the engine says in lower case, and what to do about it.
ADVICE = (
    (r"credentials store error",
     "the credential helper that Docker's config.json names failed: install it, or log in without it"),
    (r"no basic auth|unauthorized|authentication required|access denied|access to the resource is denied|forbidden",
     "log in as the user that runs this command: `docker login {host}`; then see that the account may read it"),
    (r"too ?many ?requests|rate limit", "the registry allows no more for now: log in, wait, or name an images.mirror"),
    (r"no space left|disk quota", "Docker's disk is full: make room (`docker system df` shows what it holds)"),
    (r"x509|certificate|http response to https",
     "Docker has to trust the registry's certificate: put its authority into /etc/docker/certs.d/{host}/ca.crt"),
    (r"manifest unknown|not found|name unknown|repository name not known|unknown blob|blob unknown",
     "the registry answers and does not hold it; a mirror has to hold the same tag and digest (docs/images.md)"),
    (r"", "see that Docker's engine on this host reaches {host}; images.mirror names another registry, images.source"
     " archive needs none, and build makes stand-ins for a host without a GPU (docs/images.md)"),
)  # fmt: skip


class RegistryError(StackError):
    """A registry or the engine refused; the message has the cause and what to do."""


def digest_at(client: docker.DockerClient, reference: str) -> str:
    """The digest that a repository:tag has at its registry now. Raises RegistryError."""
    try:
        answer = client.api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
        digest = str(answer["Descriptor"]["digest"])
    except (docker.errors.DockerException, requests.RequestException, KeyError) as error:
        raise RegistryError(f"the digest of {reference} could not be resolved: {explained(error, reference)}") from None
    if not DIGEST.fullmatch(digest):
        raise RegistryError(f"the digest of {reference} could not be resolved: the registry says {digest!r}")
    return digest


def ask_digests(
    client: docker.DockerClient, pins: list[ImagePin], mirror: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """(reference -> digest, reference -> why there is none) as the registry says now."""
    found: dict[str, str] = {}
    failed: dict[str, str] = {}
    pins = list({pin.reference: pin for pin in pins}.values())

    def ask(pin: ImagePin) -> None:
        try:
            found[pin.reference] = digest_at(client, at(pin, mirror))
        except RegistryError as error:
            failed[pin.reference] = str(error)

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        list(pool.map(ask, pins))
    return dict(sorted(found.items())), dict(sorted(failed.items()))


def record(root: Path, found: Mapping[str, str]) -> Lock:
    """Keep digests of images that had none; one that is in the lock stays. The lock as it is now."""

    def added(lock: Lock) -> Lock:
        return {**lock, **{reference: lock.get(reference) or digest for reference, digest in found.items()}}

    return change_lock(root, added)


def write_lock(root: Path, pins: list[ImagePin], found: Mapping[str, str]) -> Lock:
    """The lock of exactly these images: digests found now, else those that were there."""

    def replaced(lock: Lock) -> Lock:
        return {pin.reference: found.get(pin.reference, lock.get(pin.reference)) for pin in pins}

    return change_lock(root, replaced)


def pull(reference: str, client: docker.DockerClient, progress: Progress) -> None:
    """Pull repository:tag[@digest]. Raises StackError: what the registry said, and what to do."""
    name, _, digest = reference.partition("@")
    repository, _, tag = name.rpartition(":")
    with progress.step(reference, "pull"):
        moved = _moved(client, name, digest) if digest else ""
        if moved:
            progress.say(moved)
        try:
            error = _transfer(reference, repository, digest or tag, client, progress)
        except (docker.errors.DockerException, requests.RequestException) as failure:
            error = said(failure)
        if error:
            told = explained(error, reference)
            raise StackError("\n  ".join([f"image {reference} could not be pulled: {told}", *[moved] * bool(moved)]))
        if digest:  # the engine keeps no tag for a pull by digest; `docker images` should show which it is
            client.api.tag(f"{repository}@{digest}", repository, tag)


def said(error: Exception | str) -> str:
    """What the engine itself said, without the SDK's frame around it."""
    explanation = getattr(error, "explanation", None)
    return str(explanation or error).strip()


def explained(error: Exception | str, reference: str) -> str:
    """The cause and, on the next line, what to do."""
    text = said(error)
    first = reference.split("/", 1)[0]
    host = first if "/" in reference and re.search(r"[.:]|^localhost$", first) else "docker.io"
    advice = next(advice for pattern, advice in ADVICE if re.search(pattern, text.lower()))
    return f"{text}\n  {advice.format(host=host)}"


def _transfer(reference: str, repository: str, wanted: str, client: docker.DockerClient, progress: Progress) -> str:
    """Pull, telling of layers; what the engine says went wrong, or ""."""
    layers: dict[str, bool] = {}
    error = ""
    for event in client.api.pull(repository, tag=wanted, stream=True, decode=True):
        if progress.cancelled.is_set():
            raise CancelledError(f"{reference}: stopped, as something else failed")
        error = error or str(event.get("error", ""))
        status = str(event.get("status", ""))
        if event.get("id") and "Pulling from" not in status:
            layers[event["id"]] = status in ("Pull complete", "Already exists")
            done = f"pull, {sum(layers.values())} of {len(layers)} layers"
            waits = "; the registry broke off, Docker is " + status.lower() if status.startswith("Retrying") else ""
            progress.detail(reference, done + waits)
    return error


def _moved(client: docker.DockerClient, name: str, digest: str) -> str:
    """What to say when the tag is another image at the registry by now, or ""."""
    try:
        now = digest_at(client, name)
    except RegistryError:
        return ""  # the pull itself tells
    if now == digest:
        return ""
    return (
        f"note: {name} is {now} at the registry now, {LOCK} says {digest}: that one is pulled. `make lock` goes over to"
        " the new one"
    )
