"""Every secret of a stack, looked at before anything is done: all that cannot be used, at once."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from stack import certificates, clients
from stack.api_keys import key_hashes
from stack.config.gateway import Gateway
from stack.errors import InputError, Problem
from stack.secrets import engine_key, grafana


def check(state: Path, names: Sequence[str], gateway: Gateway, root: Path) -> None:
    """names: clients of the stack file. Raises InputError; what is not there yet is no problem."""
    problems = list(dict.fromkeys(_problems(state, names, gateway, root)))
    if problems:
        raise InputError("secrets", problems)


def tighten(state: Path) -> None:
    """What only this host reads is nobody else's: folders 0700, files 0400, of the user whose stack it is.

    Containers' copies are not touched.
    """
    secrets = state / "secrets"
    folders = [path for path in (secrets, secrets / "api-keys") if path.is_dir()]
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    owner = state.stat().st_uid if folders else 0
    for path in (*folders, *files):
        now, mode = path.stat(), 0o700 if path in folders else 0o400
        if os.geteuid() == 0 and now.st_uid != owner:
            os.chown(path, owner, -1)
        if now.st_mode & 0o777 != mode:
            path.chmod(mode)


def _problems(state: Path, names: Sequence[str], gateway: Gateway, root: Path) -> Iterator[Problem]:
    attempts: list[Callable[[], object]] = [partial(key_hashes, state, [name]) for name in names]
    attempts += [partial(key_hashes, state, names), partial(clients.added, state), partial(engine_key.load, state)]
    attempts.append(partial(grafana.load, state))
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
