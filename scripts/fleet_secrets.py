#!/usr/bin/env python3
"""Make the secrets of a fleet on the controller, where they are missing; say which host gets which, but no value.

The playbook deploy_fleet.yml calls this and hands out the same copies. With --look nothing is made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import api_keys, certificates, console
from stack.config.folders import state_dir
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.errors import InputError
from stack.hardware import ROLES, is_fleet, load_hosts
from stack.inputs import ROOT
from stack.locks import only_one
from stack.plan.gateway import client_names
from stack.secrets import engine_key, handed
from stack.secrets.check import tighten


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: scripts/fleet_secrets.py stack.yaml --hosts hosts.yaml"
    )
    parser.add_argument("stack", type=Path, metavar="STACK", help="the stack file, such as stack.yaml")
    parser.add_argument("--hosts", type=Path, required=True, metavar="FILE", help="hosts file of the fleet")
    parser.add_argument("--vault", default="", metavar="NAMES", help="clients whose keys are in a vault: none is made")
    parser.add_argument("--look", action="store_true", help="make nothing")
    arguments = parser.parse_args()
    config, hosts = load_config(arguments.stack, str(arguments.stack)), load_hosts(arguments.hosts)
    if not is_fleet(hosts):
        raise InputError(str(arguments.hosts), "its hosts are each a stack for themselves: docs/fleet.md")
    state = state_dir(config, ROOT)
    made = [] if arguments.look else _make(config, state, arguments.vault.split(","))
    pair = None if config.gateway.tls else certificates.current(state, config.gateway, ROOT)
    told = {}
    for host in hosts:
        roles = [role for role in ROLES if host.has(role)]
        paths = handed.handed_to(roles, config, pair)
        told[host.name] = {
            "handed": [path for path in paths if (state / path).is_file()],
            "clients": [path.rsplit("/", 1)[1] for path in paths if "/api-keys/" in path],
            "files": handed.own_files(roles, config),
        }
    console.print_json({"folder": str(state), "made": made, "hosts": told})
    return 0


def _make(config: StackConfig, state: Path, in_vault: list[str]) -> list[str]:
    """What was made. A file that `ansible-vault encrypt` has made of one is left as it is."""
    with only_one(state):
        names = [name for name in client_names(config) if name not in in_vault]
        made = [f"API key {name}" for name in api_keys.ensure_keys(state, names)]
        key = engine_key.key_file(state)
        if not key.is_file() or not handed.is_encrypted(key):
            made += [] if engine_key.load(state) else ["key of the engines"]
            engine_key.ensure(state)
        if config.gateway.tls is None:
            name, new = certificates.ensure(state, config.gateway, ROOT)
            made += [f"certificate {name}"] if new else []
        tighten(state)
    return made


if __name__ == "__main__":
    console.run(main)
