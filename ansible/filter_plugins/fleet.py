"""Hosts of a fleet by the names that its plan has for them; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def by_stack_host(hosts: Sequence[str], variables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The plan's name -> the inventory's, of these hosts of the inventory; variables: hostvars.

    The name is stack_host, or what the role stack takes by itself.
    """
    return {variables[host].get("stack_host") or _own_name(host): host for host in hosts}


def _own_name(host: str) -> str:
    return re.sub("[^a-z0-9-]", "-", host.split(".", maxsplit=1)[0].lower())


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"by_stack_host": by_stack_host}
