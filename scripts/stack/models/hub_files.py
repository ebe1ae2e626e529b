"""The files of one commit, as a hub states them: names, sizes, checksums."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import parse_ratelimit_headers

from stack.errors import StackError
from stack.models.files import WEIGHTS, is_safe_name, wanted

TIMEOUT_SECONDS = 30
TRIES = 5
# A hub counts requests in windows of five minutes; who asks for a longer wait than two of them means 'not today'.
LONGEST_WAIT_SECONDS = 600

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True)
class HubFile:
    """One file. sha256 where the hub keeps it as a large file, else git's own SHA-1 of the blob."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def difference(self, file: Path) -> str | None:
        """What is wrong with the bytes on disk, or None."""
        size = file.stat().st_size
        if size != self.size:
            return f"it has {size} bytes, the hub says {self.size}"
        kind, said = ("SHA-256", self.sha256) if self.sha256 else ("git SHA-1", self.git_sha1)
        sums = hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with file.open("rb") as stream:
            while piece := stream.read(2**20):
                sums.update(piece)
        return None if sums.hexdigest() == said else f"its {kind} is {sums.hexdigest()}, the hub says {said}"


@dataclass(frozen=True)
class HubModel:
    """One commit of a repository, with the files that an engine needs."""

    repository: str
    endpoint: str
    commit: str
    files: tuple[HubFile, ...]


def ask(repository: str, revision: str | None, endpoint: str, token: str | None, say: Say) -> HubModel:
    """What is to be fetched. Raises StackError, and what huggingface_hub raises."""
    # False, not None: a token that somebody logged in with on this host is not for a mirror
    api = HfApi(endpoint=endpoint, token=token or False)
    found = patiently(
        lambda: api.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS), say
    )
    if not re.fullmatch(r"[0-9a-f]{40}", found.sha or "") or (revision and found.sha != revision):
        raise StackError(f"{endpoint} answers commit {found.sha!r} for {repository} at {revision or 'its newest'}")
    commit = str(found.sha)
    siblings = {sibling.rfilename: sibling for sibling in found.siblings or ()}
    names = wanted(siblings)
    unsafe = [name for name in names if not is_safe_name(name)]
    if unsafe:
        raise StackError(f"{repository} at {commit} names files outside its folder: {unsafe[0]!r}; nothing is fetched")
    if not any(name.endswith(WEIGHTS) for name in names):
        raise StackError(
            f"{repository} has no *{WEIGHTS} at {commit}; weights in other formats can run code when they are loaded"
            " and are not fetched. Choose a repository or a revision with safetensors."
        )
    files = []
    for name in names:
        known = siblings[name]
        if known.size is None or (known.lfs is None and known.blob_id is None):
            files.append(_from_headers(repository, commit, name, endpoint, token, say))
        else:
            files.append(HubFile(name, known.size, known.lfs.sha256 if known.lfs else None, known.blob_id))
    return HubModel(repository, endpoint, commit, tuple(files))


def _from_headers(repository: str, commit: str, name: str, endpoint: str, token: str | None, say: Say) -> HubFile:
    """For mirrors whose listing has names only: a file's own headers state its size and checksum."""
    url = hf_hub_url(repository, name, revision=commit, endpoint=endpoint)
    found = patiently(lambda: get_hf_file_metadata(url, token=token or False, endpoint=endpoint), say)
    etag = found.etag or ""
    if found.size is None or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag):
        raise StackError(f"{endpoint} states no size or no checksum of {name}; what comes could not be checked")
    return HubFile(name, found.size, etag if len(etag) == 64 else None, etag if len(etag) == 40 else None)


def patiently(question: Callable[[], T], say: Say) -> T:
    """Ask again when a hub is busy, after the time that it asks for."""
    for tries_left in range(TRIES, -1, -1):
        try:
            return question()
        except HfHubHTTPError as error:
            if error.response.status_code not in (429, 500, 502, 503, 504) or not tries_left:
                raise
            wait = wait_asked(error.response.headers) or 1
            say(f"  the hub answers {error.response.status_code}: asking again in {wait} s")
            time.sleep(wait)
    raise AssertionError  # the last try returned or raised


def wait_asked(headers: Mapping[str, str]) -> int:
    """Seconds that an answer asks to wait; 0 when it does not say."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    text = headers.get("retry-after", "").strip()
    return int(text) if text.isdigit() else 0


def refuse_long_waits(response: httpx2.Response) -> None:
    """For every answer, before anybody sleeps: the library would wait for as long as it is told."""
    wait = wait_asked(response.headers) if response.status_code >= 400 else 0
    if wait > LONGEST_WAIT_SECONDS:
        raise StackError(
            f"the hub allows no more requests for {wait} s (status {response.status_code}); run the command again"
            " then. A token, or a mirror of your own, has higher limits."
        )
