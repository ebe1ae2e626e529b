"""Which hub is asked, and with which token. The token is in no argument list, no record and no message."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from stack.config.schema import Hub
from stack.console import say
from stack.errors import InputError

HUB = "https://huggingface.co"


def endpoint(hub: Hub) -> str:
    """Address of the hub: HF_ENDPOINT in the environment, hub.mirror, or the public one. Raises InputError."""
    asked = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if not asked:
        return hub.mirror or HUB
    parts = urlsplit(asked)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise InputError("HF_ENDPOINT", "must be the address of a hub such as https://hub.example.org, without a user")
    return asked


def token(hub: Hub, root: Path, address: str, file: Path | None = None) -> str | None:
    """The token for this hub: from `file` (--token-file), HF_TOKEN, or hub.token_file. None: there is none.

    Raises InputError when it cannot be read, is not one, or would travel unencrypted.
    """
    # taken out of the environment: programs that are started later have no use for it
    given = os.environ.pop("HF_TOKEN", "").strip()
    where = "HF_TOKEN"
    if file is not None:
        where, given = f"--token-file {file}", _read(file, f"--token-file {file}")
    elif not given and hub.token_file is not None:
        path = Path(root) / hub.token_file
        where, given = f"hub.token_file: {path}", _read(path, f"hub.token_file: {path}")
    if not given:
        return None
    if not re.fullmatch(r"[\x21-\x7e]{1,1000}", given):
        raise InputError(where, "holds no token: one word of plain characters is needed, such as hf_...")
    parts = urlsplit(address)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InputError(where, f"a token is not sent to {address} unencrypted; use https, or leave the token out")
    return given


def _read(path: Path, where: str) -> str:
    try:
        text = path.read_bytes()[:4096].decode()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(where, f"the token cannot be read: {cause}; put the token alone into this file") from None
    if not text.strip():
        raise InputError(where, "the file is empty; put the token alone into it")
    if path.stat().st_mode & 0o077:
        say(f"warning: others on this host can read the token in {path}: chmod 600 {path}")
    return text.strip()
