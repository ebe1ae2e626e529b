"""A model from a hub into a folder: resumed byte by byte, every file checked before it gets its name.

huggingface_hub talks to the hub. Its own download of whole files is used for those over 50 GB only: it forgets what
came of a file when its process ends.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import httpx2
from huggingface_hub import constants, hf_hub_download, hf_hub_url, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import default_client_factory

from stack.disk_space import check_space, gib
from stack.errors import StackError
from stack.models.hub_errors import explain
from stack.models.hub_files import HubFile, HubModel, ask, refuse_long_waits
from stack.models.transfer import Meter, side_by_side

WORKERS = 4
TRIES = 5
PART, HUGE = ".incomplete", ".huge"

Say = Callable[[str], None]


def fetch(
    repository: str, revision: str | None, endpoint: str, token: str | None, place: Callable[[str], Path], say: Say
) -> tuple[HubModel, Path]:
    """Bring one commit's files into place(commit). Raises StackError; what came stays there and is used again."""
    what = f"{repository} from {endpoint}"
    try:
        with _client(say):
            model = ask(repository, revision, endpoint, token, say)
            folder = place(model.commit)
            _bring_all(model, folder, token, what, say)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise StackError(explain(error, repository, endpoint, has_token=token is not None)) from None
    return model, folder


def to_come(
    repository: str, revision: str | None, endpoint: str, token: str | None, place: Callable[[str], Path], say: Say
) -> int:
    """Bytes that fetch() would still bring. Raises StackError."""
    try:
        with _client(say):
            model = ask(repository, revision, endpoint, token, say)
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise StackError(explain(error, repository, endpoint, has_token=token is not None)) from None
    folder = place(model.commit)
    return sum(file.size - _came(file, folder) for file in model.files if not _is_whole(file, folder))


def _bring_all(model: HubModel, folder: Path, token: str | None, what: str, say: Say) -> None:
    todo = [file for file in model.files if not _is_whole(file, folder)]
    total = sum(file.size for file in model.files)
    have = total - sum(file.size - _came(file, folder) for file in todo)
    check_space(folder, total - have, what)
    if not todo:
        return
    folder.mkdir(parents=True, exist_ok=True)
    say(f"fetching {what} at {model.commit}: {len(todo)} files, {gib(total - have)} of {gib(total)} to come")
    meter = Meter(total, have)
    jobs = [partial(_bring, model, file, folder, token, meter) for file in sorted(todo, key=lambda file: -file.size)]
    side_by_side(jobs, WORKERS, meter, say)
    rmtree(folder / HUGE, ignore_errors=True)
    say(f"fetched {meter.line()}, every checksum as the hub states it")


def _is_whole(file: HubFile, folder: Path) -> bool:
    # a file has its name only after its checksum was right
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size


def _came(file: HubFile, folder: Path) -> int:
    with suppress(FileNotFoundError):
        return min((folder / (file.path + PART)).stat().st_size, file.size)
    return 0


def _bring(model: HubModel, file: HubFile, folder: Path, token: str | None, meter: Meter) -> None:
    target, part = folder / file.path, folder / (file.path + PART)
    target.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    while True:
        if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE and not part.exists():
            _bring_huge(model, file, folder, token, meter).rename(part)
        else:
            _continue(model, file, part, token, meter)
        wrong = file.difference(part)
        if wrong is None:
            break
        meter.add(-part.stat().st_size)
        part.unlink()
        if not resumed:
            raise StackError(
                f"{file.path} of {model.repository} came damaged: {wrong}. It was thrown away, the rest is kept: run"
                f" the command again. If it stays so, a proxy or {model.endpoint} changes or truncates files."
            )
        resumed = False  # the damage may be as old as the first piece: once more from the beginning
    with part.open("rb") as written:
        os.fsync(written.fileno())  # the name says that the bytes are there, after a power cut too
    part.rename(target)


def _continue(model: HubModel, file: HubFile, part: Path, token: str | None, meter: Meter) -> None:
    url = hf_hub_url(model.repository, file.path, revision=model.commit, endpoint=model.endpoint)
    # False, not None: see hub_files. identity: a range of compressed bytes would be of no use
    headers = build_hf_headers(token=token or False, headers={"Accept-Encoding": "identity"})
    tries_left = TRIES
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have > file.size:
            meter.add(-file.size)
            part.unlink()
            have = 0
        try:
            with part.open("ab") as stream:
                http_get(
                    url, stream, resume_size=have, headers=headers, expected_size=file.size, tqdm_class=_bar(meter)
                )
        except (httpx2.NetworkError, HfHubHTTPError) as error:
            # http_get goes on by itself after most cuts, but not after a reset or while a server restarts
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise
            grown = part.stat().st_size > have
            tries_left = TRIES if grown else tries_left - 1
            if tries_left <= 0 or isinstance(error, httpx2.ConnectError):
                raise
            time.sleep(1)
        else:
            return


def _bring_huge(model: HubModel, file: HubFile, folder: Path, token: str | None, meter: Meter) -> Path:
    """Over 50 GB a hub serves only its own protocol (Xet), which the library speaks."""
    came = hf_hub_download(
        model.repository, file.path, revision=model.commit, endpoint=model.endpoint, token=token or False,
        local_dir=folder / HUGE,
    )  # fmt: skip
    meter.add(file.size)
    return Path(came)


def _bar(meter: Meter) -> Any:
    """What http_get takes for a progress bar."""

    class Bar:
        def __init__(self, **_: object) -> None:
            pass

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            meter.add(count)

    return Bar


@contextmanager
def _client(say: Say) -> Iterator[None]:
    """The library's HTTP client with a limit on waiting, and its warnings as lines of progress."""

    def make() -> httpx2.Client:
        client = default_client_factory()
        client.event_hooks["response"].append(refuse_long_waits)
        return client

    class Tell(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            say(f"  {entry.getMessage().splitlines()[0]}")

    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, [Tell(logging.WARNING)]
    set_client_factory(make)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        logger.handlers = handlers
