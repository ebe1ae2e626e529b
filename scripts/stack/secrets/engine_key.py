"""The API key that engines ask for and HAProxy sends: no client ever sees it.

`engine-key.json` is what this host decides by. A container reads a copy: engines `engine/<name>.yaml` (a vLLM
`--config` file), HAProxy `haproxy/<name>.map`. A copy is named after its content and never changes. The rendered tree
names the copies in use, so a new key is validated, applied and put back like any other change, and no value is in it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stack.errors import InputError
from stack.private_file import write_private

NONE_YET = "none-yet"


@dataclass(frozen=True)
class EngineKeys:
    """sends: what HAProxy sends. accepts: what engines take. rotating: until the last step is applied."""

    sends: str
    accepts: tuple[str, ...]
    rotating: bool = False

    @property
    def step(self) -> int:
        """1: engines take the new key beside the old one. 2: HAProxy sends the new one. 3: there is one key."""
        if self.accepts == (self.sends,):
            return 3
        return 1 if self.sends == self.accepts[0] else 2

    def next_step(self) -> EngineKeys | None:
        """None after the last. Neighbours work together in any order: replicas are replaced one after the other."""
        if self.step == 3:
            return None
        new = self.accepts[1]
        return replace(self, sends=new) if self.step == 1 else replace(self, accepts=(new,))

    def engine_copy(self) -> bytes:
        """vLLM's configuration file. JSON is YAML, and the engine's health check has no YAML parser."""
        return json.dumps({"api-key": list(self.accepts)}).encode() + b"\n"

    def haproxy_copy(self) -> bytes:
        """A map of HAProxy with one entry."""
        return f"engine {self.sends}\n".encode()


def new_keys() -> EngineKeys:
    """A first key: 256 random bits."""
    key = _random_key()
    return EngineKeys(key, (key,))


def ensure(state: Path) -> EngineKeys:
    """What is kept, made if need be. Raises InputError."""
    keys = load(state)
    if keys is None:
        save(state, keys := new_keys())
    return keys


def begin(keys: EngineKeys) -> EngineKeys:
    """The first step of a rotation: engines take a new key beside the old one."""
    return EngineKeys(keys.sends, (keys.sends, _random_key()), rotating=True)


def key_file(state: Path) -> Path:
    """Where this host keeps it."""
    return state / "secrets" / "engine-key.json"


def load(state: Path) -> EngineKeys | None:
    """None when it is still to be made. Raises InputError for one that is unusable."""
    path = key_file(state)
    try:
        document = json.loads(path.read_text())
        keys = EngineKeys(document["sends"], tuple(document["accepts"]), document["rotating"])
        if keys.sends not in keys.accepts or not all(isinstance(key, str) for key in keys.accepts):
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise InputError(
            str(path), f"the engines' key cannot be read: {why}; restore it, or delete it: `make up` makes a new one,"
            " and each replica refuses requests until it is replaced"
        ) from None  # fmt: skip
    return keys


def save(state: Path, keys: EngineKeys) -> None:
    """Keep it, in one step."""
    key_file(state).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(key_file(state), (json.dumps(asdict(keys)) + "\n").encode())


def names(keys: EngineKeys | None) -> tuple[str, str]:
    """Names of the copies (engines', HAProxy's), as the rendered tree has them."""
    return (name_of(keys.engine_copy()), name_of(keys.haproxy_copy())) if keys else (NONE_YET, NONE_YET)


def name_of(content: bytes) -> str:
    """The start of a copy's SHA-256: of 256 random bits it tells nothing."""
    return hashlib.sha256(content).hexdigest()[:16]


def _random_key() -> str:
    # hex: no character of it means anything to YAML, to HAProxy or to a command line
    return "sk-engine-" + secrets.token_hex(32)
