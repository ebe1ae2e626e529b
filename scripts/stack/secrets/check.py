"""Every secret of a stack, looked at before anything is done: all that cannot be used, at once."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from stack import certificates, clients
from stack.api_keys import key_hashes
from stack.config import Gateway
from stack.errors import InputError, Problem
from stack.secrets import engine_key


def check(state: Path, names: Sequence[str], gateway: Gateway, root: Path) -> None:
    """names: clients of the stack file. Raises InputError; what is not there yet is no problem."""
    problems = list(dict.fromkeys(_problems(state, names, gateway, root)))
    if problems:
        raise InputError("secrets", problems)


def tighten(state: Path) -> None:
    """What only this host reads is nobody else's: folders 0700, files 0400. Containers' copies are not touched."""
    secrets = state / "secrets"
    private = [(secrets, 0o700), (secrets / "api-keys", 0o700)]
    private += [(path, 0o400) for folder in (secrets, secrets / "api-keys") for path in folder.glob("*")]
    for path, mode in private:
        wanted = path.is_dir() == (mode == 0o700)
        if wanted and path.exists() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


def _problems(state: Path, names: Sequence[str], gateway: Gateway, root: Path) -> Iterator[Problem]:
    attempts: list[Callable[[], object]] = [partial(key_hashes, state, [name]) for name in names]
    attempts += [partial(key_hashes, state, names), partial(clients.added, state), partial(engine_key.load, state)]
    for attempt in attempts:
        try:
            attempt()
        except InputError as error:
            yield from (Problem(error.source, problem.what) for problem in error.problems)
    yield from _certificate(state, gateway, root)


def _certificate(state: Path, gateway: Gateway, root: Path) -> Iterator[Problem]:
    name = certificates.current(state, gateway, root)
    if name is None:
        return
    pair = certificates.certificate_file(state, name), certificates.private_key_file(state, name)
    if not os.access(pair[1], os.R_OK):
        return  # nginx's and not ours to read: nginx tries it before it is used
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*pair, password="")
    except (ssl.SSLError, OSError):
        what = f"not the private key of {pair[0].name}; delete both files and `make up` makes the pair again"
        yield Problem(str(pair[1]), what)
