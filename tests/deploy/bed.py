"""Hosts of the deploy tests: bare Debian 12 servers with systemd, and runs of the playbooks against them."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import requests
import yaml
from docker.errors import NotFound
from docker.types import IPAMConfig, IPAMPool

from integration.load import Load
from provision.bed.hosts import FIXTURE, LABEL, Host
from provision.bed.playbooks import ROOT, Run, play

STATE = "/var/lib/vllm-onprem/stack/stacks/fleet"
PORT = 8443
# Seconds of a client between two requests, and of silence between the clients' turns. A deploy takes minutes, so enough
# is asked anyway: the cores, which all of them share here, are for the engine that comes up.
GENTLY = {"pause": 0.1, "rest": 7.0}
# The name in the gateway's certificate, and the server that has it now: clients check one and reach the other.
NAME = "fleet.example.org"
NAMES: dict[str, str] = {}
STACK = yaml.safe_load(Path(__file__).with_name("stack.yaml").read_text())


def flags(*more: str, **keys: Any) -> dict[str, Any]:
    """The stack file's models with further flags of vLLM, and these keys of each changed."""
    (model,) = STACK["models"]
    return {"models": [{**model, "extra_args": [*model["extra_args"], *more], **keys}]}


def resolve_names(resolve: Any = socket.getaddrinfo) -> None:
    """Make this process find the servers of the tests by their name."""

    def found(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(NAMES.get(host, host), *arguments, **options)

    socket.getaddrinfo = found


class StackHost(Host):
    """A server that gets a stack."""

    def containers(self) -> dict[str, tuple[str, str]]:
        """service -> (container id, start time) of its stack."""
        names = self.sh("docker ps --quiet --filter label=com.docker.compose.project=fleet").split()
        found = json.loads(self.sh(f"docker inspect {' '.join(names)}")) if names else []
        return {
            each["Config"]["Labels"]["com.docker.compose.service"]: (each["Id"], each["State"]["StartedAt"])
            for each in found
        }

    def restarted(self, before: Mapping[str, tuple[str, str]]) -> list[str]:
        """Services that are not as they were: started, replaced or gone."""
        after = self.containers()
        return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))

    def reloads(self) -> dict[str, str]:
        """What each part says of the configuration it reads: changes with every reload."""
        return {
            "nginx": self.sh(f"sed -n 's/.*\"revision\": //p' {STATE}/live/nginx/revision.json"),
            "prometheus": self._metric(9090, "prometheus_config_last_reload_success_timestamp_seconds"),
            "alertmanager": self._metric(9093, "alertmanager_config_last_reload_success_timestamp_seconds"),
        }

    def _metric(self, port: int, name: str) -> str:
        code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        return self.sh(f'python3 -c "{code}" | grep ^{name}')

    @property
    def address(self) -> str:
        self.container.reload()
        networks = self.container.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def key(self, client: str = "default") -> str:
        return self.read(f"{STATE}/secrets/api-keys/{client}").strip()

    def load(self, folder: Path, workers: int = 4) -> Load:
        """Clients of its gateway, from outside, that never retry."""
        ca_file = folder / f"{self.name}.crt"
        ca_file.write_text(self.read(f"{STATE}/gateway.crt"))
        NAMES[NAME] = self.address
        return Load(f"https://{NAME}:{PORT}", self.key(), ca_file, "toy", workers, 8, **GENTLY)

    def completion(self) -> int:
        """Status of one completion through the gateway; 0 when there is no answer."""
        try:
            answer = requests.post(
                f"https://{self.address}:{PORT}/v1/completions", json={"model": "toy", "prompt": "x", "max_tokens": 4},
                headers={"Authorization": f"Bearer {self.key()}"}, verify=False, timeout=60,
            )  # fmt: skip
        except requests.RequestException:
            return 0
        return answer.status_code


class Servers:
    """Everything that a run of these tests starts. Images are loaded once: servers share a volume for Docker's data,
    one after the other."""

    def __init__(
        self, client: docker.DockerClient, image: str, bundle: Path, name: str, subnet: str | None = None
    ) -> None:
        self.client, self.image, self.bundle, self.name = client, image, bundle, name
        pools = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)]) if subnet else None
        self.network = client.networks.create(f"{name}-net", labels={LABEL: name}, ipam=pools)
        self.data = client.volumes.create(f"{name}-docker", labels={LABEL: name})

    def volume(self, name: str) -> str:
        """A volume for the data of one more Docker: servers that are up at once need one each."""
        return str(self.client.volumes.create(f"{self.name}-{name}", labels={LABEL: self.name}).name)

    def host(
        self, name: str, *, data: str | None = None, tmpfs: Mapping[str, str] | None = None, address: str | None = None
    ) -> StackHost:
        """A fresh server that is up. data: another volume than the shared one. address: of the network's subnet."""
        place = self.client.api.create_endpoint_config(ipv4_address=address) if address else None
        container = self.client.containers.create(
            self.image,
            "/sbin/init",
            name=f"{self.name}-{name}",
            hostname=name,
            labels={LABEL: self.name},
            network=self.network.name,
            networking_config={str(self.network.name): place} if place else None,
            cap_add=["SYS_ADMIN", "NET_ADMIN", "MKNOD", "SYS_PTRACE"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            cgroupns="host",
            tmpfs={"/run": "", "/run/lock": "", **(tmpfs or {})},
            volumes=[
                f"{data or self.data.name}:/var/lib/docker",
                f"{self.bundle}:/srv/bundle:ro",
                "/sys/fs/cgroup:/sys/fs/cgroup:rw",
            ],
            restart_policy={"Name": "always"},  # a reboot ends PID 1
        )
        host = StackHost(container)
        host.write("/var/lib/bed/hardware.json", FIXTURE.read_text())
        container.start()
        host.wait()
        return host

    def remove(self, host: Host) -> None:
        """Its own containers too, which are in the shared volume."""
        host.run("sh", "-c", "docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes")
        host.run("sh", "-c", "docker network prune --force")
        host.container.remove(force=True, v=True)

    def close(self) -> None:
        filters: dict[str, Any] = {"label": f"{LABEL}={self.name}"}
        for container in self.client.containers.list(all=True, filters=filters):
            try:
                container.remove(force=True, v=True)
            except NotFound:
                continue
        for part in (*self.client.networks.list(filters=filters), *self.client.volumes.list(filters=filters)):
            part.remove()  # type: ignore[attr-defined]


class Controller:
    """One who deploys: an inventory, a stack file and a folder to build in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def inventory(self) -> Path:
        return self.folder / "hosts.yml"

    def write(self, host: Host | list[Host], stack: Mapping[str, Any] | None = None, **variables: Any) -> None:
        """The inventory of hosts, and the stack file. stack: top-level keys of it to replace."""
        hosts = host if isinstance(host, list) else [host]
        stack_file = self.folder / "stack.yaml"
        stack_file.write_text(yaml.safe_dump({**STACK, **(stack or {})}))
        values = {
            "ansible_connection": "community.docker.docker",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "stack_file": str(stack_file),
            "stack_build": str(self.folder / "build"),
            "stack_wheels": "/srv/bundle/wheels",
            **variables,
        }
        self.inventory.write_text(
            yaml.safe_dump({"gpu_nodes": {"hosts": {each.name: None for each in hosts}, "vars": values}})
        )

    def play(
        self, playbook: str, host: Host | list[Host], *arguments: str, stack: Mapping[str, Any] | None = None,
        kill_at: str | None = None, **variables: Any,
    ) -> Run:  # fmt: skip
        """Run a playbook against hosts. stack: as in write()."""
        self.write(host, stack, **variables)
        return play(playbook, self.inventory, *arguments, kill_at=kill_at)

    def make(self, target: str, *arguments: str) -> str:
        """What a target of the Makefile prints about the hosts of the inventory."""
        command = ["make", target, f"INVENTORY={self.inventory}", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
