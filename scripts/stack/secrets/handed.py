"""The secrets of a fleet: made once, on the controller; each host that needs them gets the same copies.

A host makes none of its own: two engines' keys would be two fleets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from stack.config.schema import StackConfig
from stack.errors import StackError
from stack.observe.alertmanager import secret_files
from stack.plan.gateway import PROBE, client_names
from stack.plan.types import Plan
from stack.secrets.copies import Copy

ENGINE_KEY = "secrets/engine-key.json"
# The start of a file that `ansible-vault encrypt` has made of another.
VAULT = b"$ANSIBLE_VAULT;"


def handed_to(roles: Collection[str], config: StackConfig, pair: str | None) -> list[str]:
    """Paths below the state folder that a host of these roles gets.

    pair: name of the gateway's self-signed certificate; None where it is the user's own, which gateway hosts have.
    """
    found = [ENGINE_KEY]
    if "gateway" in roles:
        found += [_key(name) for name in client_names(config)]
        found += [f"tls/{pair}.crt", f"tls/{pair}.key"] if pair else []
    elif "observability" in roles:
        found.append(_key(PROBE))
    return found


def own_files(roles: Collection[str], config: StackConfig) -> list[str]:
    """Secret files that the stack file names and a host of these roles reads, as the stack file has them."""
    found = []
    if "gateway" in roles and config.gateway.tls:
        found += [config.gateway.tls.certificate, config.gateway.tls.key]
    if "observability" in roles:
        found += list(secret_files(config.observability.model_dump()).values())
    if "engines" in roles and config.hub.token_file:
        found.append(config.hub.token_file)
    return found


def needed_by(plan: Plan) -> list[str]:
    """What a host cannot do without, of what it was handed."""
    assert plan.fleet
    found = [ENGINE_KEY]
    if "gateway" in plan.fleet.roles:
        found += [_key(name) for name in plan.gateway["api_keys"]]
    elif "observability" in plan.fleet.roles:
        found.append(_key(PROBE))
    return found


def require(state: Path, plan: Plan) -> None:
    """Raises StackError where something that the controller hands out is not here."""
    missing = [path for path in needed_by(plan) if not (state / path).is_file()]
    if missing:
        raise StackError(f"{', '.join(missing)} of {state} are not there: the controller hands them out, `make deploy`")


def for_roles(copies: Sequence[Copy], roles: Collection[str]) -> list[Copy]:
    """Containers' copies of the engines' key, where there are such containers."""
    readers = {"engine": "engines", "haproxy": "gateway"}
    return [copy for copy in copies if readers[copy.folder] in roles]


def is_encrypted(path: Path) -> bool:
    """Whether a file of the controller is a vault: Ansible decrypts it on its way to the hosts."""
    with path.open("rb") as file:
        return file.read(len(VAULT)) == VAULT


def _key(name: str) -> str:
    return f"secrets/api-keys/{name}"
