"""What a host of a fleet says before a rollback: what runs here, and what the release that is gone back to wants here.

From what the host keeps of that release alone. The host of Prometheus makes one order of all that the hosts say.
"""

from __future__ import annotations

import argparse
from typing import Any

from stack.deploy.fleet_deploy import HostDeploy, as_told
from stack.deploy.host_state import HostState
from stack.deploy.running import engine_from, running_engines
from stack.drains import drained
from stack.effects import service_hashes
from stack.fleet_host import begin
from stack.fleet_prepare import rendered_now
from stack.gateway_state import GatewayState
from stack.inputs import ROOT
from stack.locks import only_one
from stack.roll import started_within
from stack.tree import checksums, read_tree

HOST_FILES = "host/"


def tell(arguments: argparse.Namespace) -> dict[str, Any]:
    """As fleet_deploy.from_told() reads it; and for the playbook the files for the host itself, and the release.

    arguments.again has to be set. Raises InputError.
    """
    inputs, plan, client = begin(arguments)
    # what an earlier deploy still does here comes to its end first
    with only_one(inputs.state, arguments.wait):
        files, live = rendered_now(inputs, plan), read_tree(inputs.live)
        state = HostState(
            gateway=GatewayState(drained=drained(inputs.state)),
            live=checksums(live),
            services=service_hashes(live),
            engines={name: engine_from(one) for name, one in running_engines(plan.project, client).items()},
            start_seconds=started_within(inputs.state),
        )
    assert plan.fleet
    return {
        "deploy": as_told(HostDeploy(plan, checksums(files), service_hashes(files), state)),
        "files": {path: text.decode() for path, text in files.items() if path.startswith(HOST_FILES)},
        "release": {
            "id": ROOT.name,
            "name": plan.project,
            "state": str(inputs.state),
            "mounts": [model.source.path for model in inputs.config.models if model.source.path],
        },
    }
