"""Every stack of the repository rendered; as a program, it prints what the bytes add up to."""

from __future__ import annotations

import hashlib
import json

from stack.gateway_state import GatewayState
from stack.render import render
from stacks import ROOT, plans
from unit import given

STATE = GatewayState({"1" * 64: "a", "2" * 64: "b", "3" * 64: "c"})


def digest() -> str:
    """One SHA-256 of all paths and contents, in the order in which they come."""
    total = hashlib.sha256()
    for name, plan in plans(given.IMAGES, images_built=False):
        tree = render(plan, STATE, ROOT)
        assert json.loads(tree["plan.json"])["host"] == plan.host, name
        for path, content in tree.items():
            total.update(path.encode() + content)
    return total.hexdigest()


if __name__ == "__main__":
    print(digest())
