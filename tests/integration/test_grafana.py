"""The container that Grafana runs in, on a stand-in for its image, which could not be had where this was written.

The stand-in has what the image promises (user 472, /var/lib/grafana, /run.sh, wget, its health page), and no Grafana.
"""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import docker
import pytest
from docker.models.containers import Container

from stack.console import say
from stack.day2 import volumes
from stack.docker_host import compose, condition, connect, containers
from stack.gateway_state import GatewayState
from stack.hardware import Host
from stack.images.choice import built_references
from stack.images.pins import load_pins
from stack.images.store import ensure
from stack.plan.make import make_plan
from stack.plan.types import Plan
from stack.render import render
from stack.secrets import grafana
from stack.secrets.copies import hand_out
from stack.smoke import host_checks
from stack.tree import write_tree
from stack_removal import remove_stack
from stacks import ROOT
from unit import given

PROJECT, PORT, IMAGE = "vllm-onprem-grafana-test", 13000, "vllm-onprem-test/grafana:1.0.0"
DATABASE = "/var/lib/grafana/grafana.db"
DOCKERFILE = """
FROM {base}
USER root
RUN mkdir -p /var/lib/grafana/plugins /etc/grafana/provisioning/plugins && chown -R 472:0 /var/lib/grafana
COPY run.sh /
COPY wget /usr/bin/
USER 472
ENTRYPOINT ["/run.sh"]
"""
RUN = """#!/bin/sh
set -eu
for each in "$GF_SECURITY_ADMIN_PASSWORD" "$GF_SECURITY_SECRET_KEY"; do
  echo "$each" | sed -n 's/^$__file{\\(.*\\)}$/\\1/p' | xargs cat >/dev/null
done
echo kept >> /var/lib/grafana/grafana.db
cd /tmp && mkdir -p api && echo '{"database": "ok", "version": "stand-in"}' > api/health
exec python3 -S -m http.server 3000
"""
WGET = "#!/usr/bin/python3 -S\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[-1], timeout=4)\n"


@dataclass(frozen=True)
class Running:
    """The one service of a stack, from its rendered tree."""

    client: docker.DockerClient
    plan: Plan

    @property
    def state(self) -> Path:
        return Path(self.plan.state_dir)

    @property
    def container(self) -> Container:
        return containers(self.client, PROJECT)["grafana"]

    def inside(self, script: str) -> str:
        """What a shell in the container prints, errors included."""
        return cast(bytes, self.container.exec_run(["sh", "-c", script]).output).decode()

    def start(self) -> None:
        """By Compose, and wait until it is healthy."""
        compose(self.state / "live", "up", "--detach", "--no-deps", "--no-build", "--pull", "never", "grafana")
        deadline = time.monotonic() + 120
        while condition(self.container) != "healthy":
            assert time.monotonic() < deadline, (condition(self.container), self.container.logs())
            time.sleep(0.5)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    client, folder = connect(), tmp_path_factory.mktemp("grafana")
    built = built_references(ROOT, load_pins(ROOT), "cpu")
    ensure(built, "build", ROOT, say, client)
    for name, text in {"Dockerfile": DOCKERFILE.format(base=built["vllm"]), "run.sh": RUN, "wget": WGET}.items():
        (folder / "image" / name).parent.mkdir(exist_ok=True)
        (folder / "image" / name).write_text(text)
        (folder / "image" / name).chmod(0o755)
    client.images.build(path=str(folder / "image"), tag=IMAGE, network_mode="none", rm=True)
    stack = given.config(name=PROJECT, paths={"state": str(folder)}, observability={"grafana": {"port": PORT}})
    made = Running(client, make_plan(stack, Host(), {**built, "grafana": IMAGE}, ROOT, images_built=True))
    remove_stack(client, PROJECT, made.state)
    try:
        write_tree(made.state / "live", render(made.plan, GatewayState({"0" * 64: "default"}), ROOT))
        hand_out(made.state, grafana.ensure(made.state), built["nginx"], client)
        made.start()
        yield made
    finally:
        remove_stack(client, PROJECT, made.state)
        client.images.remove(IMAGE, force=True)


def test_the_smoke_test_asks_its_health_page(running: Running) -> None:
    (check,) = (each for each in host_checks(running.plan.as_dict(), running.client) if each.name == "dashboards")
    assert check.attempt() == "Grafana stand-in, its database is ok"


def test_it_is_not_root_has_no_capability_and_writes_to_its_volume_alone(running: Running) -> None:
    assert running.inside("id -u; id -g").split() == ["472", "472"]
    status = dict(line.split(":\t") for line in running.inside("cat /proc/1/status").splitlines() if ":\t" in line)
    assert {int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for place in ("/", "/run/secrets/", "/etc/grafana/stack/dashboards/", "/etc/grafana/provisioning/datasources/"):
        assert "Read-only file system" in running.inside(f"touch {place}x"), place
    assert running.inside("touch /var/lib/grafana/x") == ""


def test_it_finds_what_is_provisioned_beside_what_its_image_has(running: Running) -> None:
    there = running.inside("ls /etc/grafana/provisioning /etc/grafana/provisioning/d* /etc/grafana/stack/dashboards")
    wanted = {"plugins", "prometheus.yaml", "vllm-onprem.yaml", "vllm-fleet.json", "vllm-slo.json"}
    assert wanted <= set(there.split())


def test_its_secrets_are_its_own_and_are_neither_in_its_inspection_nor_in_its_log(running: Running) -> None:
    for copy in grafana.ensure(running.state):
        about = copy.path(running.state).stat()
        assert (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid) == (0o400, 472, 472)
        value = copy.content.strip()
        assert value in running.inside(f"cat /run/secrets/{copy.name}").encode()
        inspected = json.dumps(running.client.api.inspect_container(running.container.id or ""))
        assert value not in inspected.encode() + running.container.logs()


def test_its_volume_is_among_those_that_a_backup_holds_and_comes_back_as_it_was(
    running: Running, tmp_path: Path
) -> None:
    volume, before = volumes.of_project(running.client, PROJECT)["grafana"], running.inside(f"cat {DATABASE}")
    with volumes.resting(running.client, PROJECT, str(volume.name)) as rested:
        volumes.save(running.client, str(volume.name), tmp_path / "grafana.tar")
    assert rested == ["grafana"]
    running.container.stop()
    running.container.remove()
    with (tmp_path / "grafana.tar").open("rb") as content:
        volumes.load(running.client, PROJECT, "grafana", content)
    running.start()
    # a line for each start: what it wrote after it was saved is gone
    assert running.inside(f"cat {DATABASE}") == before + "kept\n"
    assert running.inside(f"stat -c %u:%a {DATABASE}") == "472:644\n"
