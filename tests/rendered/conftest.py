"""What the checks of rendered files need: the images of the CPU stack, a throw-away certificate, a scratch folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import pytest

from stack import certificates, console
from stack.config.gateway import Gateway
from stack.docker_host import connect
from stack.gateway_state import GatewayState
from stack.images.choice import built_references
from stack.images.pins import load_pins
from stack.images.store import ensure
from stack.locks import taking_turns
from stack.secrets import engine_key
from stack.secrets.copies import copies_of, hand_out
from stacks import ROOT


@dataclass(frozen=True)
class Programs:
    """The images whose programs read the rendered files, and the folder that they may read."""

    client: docker.DockerClient
    images: dict[str, str]
    scratch: Path
    state: GatewayState

    @property
    def folder(self) -> Path:
        """The stack's own folder, with a certificate and a key of the engines."""
        return self.scratch / "state"


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    client = connect()
    references = built_references(ROOT, load_pins(ROOT), "cpu")
    with taking_turns(ROOT / ".state"):  # pytest's processes, where there are several
        ensure(references, "build", ROOT, console.say, client)
    with TemporaryDirectory(prefix="vllm-onprem-rendered-") as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)  # the programs run as users of their own
        pair, _ = certificates.ensure(scratch / "state", Gateway(), ROOT)
        certificates.private_key_file(scratch / "state", pair).chmod(0o444)
        keys = engine_key.ensure(scratch / "state")
        hand_out(scratch / "state", copies_of(keys), references["nginx"], client)
        state = GatewayState({"0" * 64: "default"}, {}, pair, frozenset(), *engine_key.names(keys))
        # what cannot be built is named in the stacks that have it, and nothing here asks these programs
        named = references | dict.fromkeys(("cadvisor", "dcgm_exporter", "grafana"), "none:0.0.0")
        yield Programs(client, named, scratch, state)
