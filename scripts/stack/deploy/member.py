"""Which fleet a host is of, by what it holds itself: the hosts file of its release, and the plan that it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stack.deploy.release import HOSTS
from stack.errors import StackError
from stack.hardware import ROLES, is_fleet, load_hosts


def membership(release: Path, live: Path) -> dict[str, Any] | None:
    """The host's name in its fleet, its roles and engines, and the roles of every host; None where it is alone.

    release: the folder of its program. live: the tree that runs. Raises StackError: nothing runs yet, or it is damaged.
    """
    path = release / HOSTS
    every = load_hosts(path) if path.is_file() else ()
    if not is_fleet(every):
        return None
    hosts = {host.name: [role for role in ROLES if host.has(role)] for host in every}
    try:
        plan = json.loads((live / "plan.json").read_text())
        name = plan["host"]
        return {
            "host": name,
            "roles": hosts[name],
            "engines": [engine["name"] for engine in plan["engines"]],
            "hosts": hosts,
        }
    except (OSError, ValueError, KeyError):
        raise StackError(f"{live / 'plan.json'} does not say which host of its fleet this is: deploy again") from None
