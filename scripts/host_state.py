#!/usr/bin/env python3
"""What this host adds to a plan that is made elsewhere, as JSON without a secret. The playbook deploy.yml calls this.

With --make-secrets what is missing of them is made first. A host of a fleet (--roles) makes none: they come from its
controller, but for a certificate of your own, which is taken from where the stack file says.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

from stack import certificates, console
from stack.config.folders import state_dir
from stack.config.load import load_config
from stack.deploy.host_state import tell
from stack.docker_host import connect
from stack.errors import InputError
from stack.inputs import ROOT
from stack.locks import add_wait_argument, only_one
from stack.plan.gateway import client_names
from stack.prepare import make_secrets
from stack.secrets.check import check


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/host_state.py stack.yaml --host gpu1 --make-secrets"
    )
    parser.add_argument("stack", type=Path, metavar="STACK", help="the stack file, or /dev/stdin")
    parser.add_argument("--host", required=True, metavar="NAME", help="the host's name in the plan")
    parser.add_argument("--make-secrets", action="store_true", help="make the API keys and the certificate if missing")
    parser.add_argument("--roles", metavar="ROLES", help="of a host of a fleet: engines,gateway,observability or less")
    add_wait_argument(parser)
    arguments = parser.parse_args()
    shown = str(arguments.stack)
    config = load_config(arguments.stack, shown)
    state = state_dir(config, ROOT)
    made: list[str] = []
    if arguments.roles:
        roles = arguments.roles.split(",")
        # what an earlier deploy still does here comes to its end first
        with only_one(state, arguments.wait) if arguments.make_secrets else nullcontext():
            if "gateway" in roles and config.gateway.tls and arguments.make_secrets:
                certificates.check_own(config.gateway, ROOT, shown)
                name, new = certificates.ensure(state, config.gateway, ROOT)
                made = [f"certificate {name}"] if new else []
            if "engines" not in roles:
                config = config.model_copy(update={"models": ()})  # their files are where they are served
            console.print_json({**tell(config, arguments.host, ROOT, shown, connect()), "made": made})
        return 0
    if arguments.make_secrets:
        if os.geteuid() != 0:
            raise InputError("--make-secrets", "root is needed: secrets belong to the containers' users")
        certificates.check_own(config.gateway, ROOT, shown)
        check(state, client_names(config), config.gateway, ROOT)
        with only_one(state, arguments.wait):
            made = make_secrets(config, state)
    console.print_json({**tell(config, arguments.host, ROOT, shown), "made": made})
    return 0


if __name__ == "__main__":
    console.run(main)
