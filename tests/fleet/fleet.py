"""A fleet of test hosts: two gateways (one with Prometheus), two hosts of engines, and one that is a stranger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.bed import NAME, NAMES, PORT, STATE, Controller, Servers, StackHost, flags
from integration.load import Load
from provision.bed.hosts import Host
from provision.bed.playbooks import Run, good

SUBNET = "10.77.0.0/24"
FLOATING = "10.77.0.100"
ROLES = {
    "gw-a": ["gateway"],
    "gw-b": ["gateway", "observability"],
    "gpu-a": ["engines"],
    "gpu-b": ["engines"],
}
ENGINES = ["engine-toy-0", "engine-toy-1"]
SEED = ("--seed", "7")
# What is asked across each event, at least.
REQUESTS = 500
STREAMS = 2


class Fleet:
    """The hosts by name, and who deploys to them."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.folder, self.controller, self.servers = folder, Controller(folder), servers
        self.results: list[str] = []
        self.hosts = {
            name: servers.host(name, data=servers.volume(name), address=f"10.77.0.{number}")
            for number, name in enumerate((*ROLES, "stranger"), 11)
        }
        entries = [
            {"name": self.hosts[name].name, "roles": roles, "address": self.hosts[name].address, "interface": "eth0"}
            for name, roles in ROLES.items()
        ]
        self.hosts_file = folder / "fleet.yaml"
        self.hosts_file.write_text(yaml.safe_dump({"hosts": entries}))
        good(self.controller.play("docker.yml", [self.hosts[name] for name in self.hosts]))

    def members(self) -> list[Host]:
        return [self.hosts[name] for name in ROLES]

    def deploy(self, *arguments: str, stack: Mapping[str, Any] | None = None, **options: Any) -> Run:
        """Deploy to the whole fleet. stack: top-level keys of the stack file to replace."""
        keys = {
            "gateway": {"server_name": NAME, "floating_address": FLOATING},
            # the controller's own; hosts have stack_state
            "paths": {"state": f".test-state/{self.servers.name}"},
            **(stack or {}),
        }
        return self.controller.play(
            "deploy.yml", self.members(), *arguments, stack=keys, stack_hosts_file=str(self.hosts_file),
            **{"fleet_place": False, **options},
        )  # fmt: skip

    def place(self, stack: Mapping[str, Any] | None = None) -> None:
        """Write hosts.lock anew. A deploy ends with that, as somebody has to look at it."""
        self.hosts_file.with_suffix(".lock").unlink(missing_ok=True)
        run = self.deploy(stack=stack, fleet_place=True)
        assert run.code != 0, run.text
        assert self.hosts_file.with_suffix(".lock").exists(), run.failures()

    def up(self) -> None:
        """Two replicas with the flags of SEED, whatever the tests before this one left."""
        self.place(flags(*SEED))
        # what they left may be a model's only replica
        good(self.deploy(stack=flags(*SEED), stack_allow_downtime=True))

    def rollback(self, *arguments: str, **options: Any) -> Run:
        """Back by what the hosts hold: the controller has no stack file, no hosts file and nowhere to build."""
        nothing = {"stack_file": "/nowhere/stack.yaml", "stack_build": "/nowhere", "stack_hosts_file": "/nowhere/hosts"}
        return self.controller.play("rollback.yml", self.members(), *arguments, **{**nothing, **options})

    def runs(self) -> dict[str, str]:
        """Host -> id of the release that it runs."""
        return {name: self.hosts[name].sh("basename $(readlink /opt/vllm-onprem/current)").strip() for name in ROLES}

    def containers(self) -> dict[str, dict[str, tuple[str, str]]]:
        return {name: self.hosts[name].containers() for name in ROLES}

    def restarted(self, before: Mapping[str, Mapping[str, tuple[str, str]]]) -> list[str]:
        """`host service` of what is not as it was."""
        return sorted(f"{name} {part}" for name in ROLES for part in self.hosts[name].restarted(before[name]))

    def serves(self, engine: str) -> list[str]:
        """The gateway hosts whose HAProxy sends requests to a replica."""
        line = f'^haproxy_server_status{{.*server="{engine}",state="UP"}} 1$'
        return [
            name
            for name in ("gw-a", "gw-b")
            if self.hosts[name].run(
                "sh", "-c", f"curl -s http://{self.hosts[name].address}:17405/metrics | grep -q '{line}'"
            ).code == 0
        ]  # fmt: skip

    def answering(self) -> tuple[StackHost, StackHost]:
        """The gateway host that has the floating address, and the other."""
        first, second = self.hosts["gw-a"], self.hosts["gw-b"]
        return (first, second) if has_address(first) else (second, first)

    @contextmanager
    def load(self, what: str, event: float = 600, pause: float = 0.2, rest: float = 0.0) -> Iterator[Load]:
        """Clients of the floating address that never retry, around an event; how many asked and failed is printed.

        event: seconds that they may take to have asked enough. pause, rest: as of Load.
        """
        gateway = self.hosts["gw-a"]
        ca_file = self.folder / "gateway.crt"
        ca_file.write_text(gateway.read(f"{STATE}/gateway.crt"))
        NAMES[NAME] = FLOATING
        with Load(
            f"https://{NAME}:{PORT}", gateway.key(), ca_file, "toy", 2 * STREAMS, 8, pause=pause, rest=rest
        ) as load:
            load.wait_for(20, 120)
            yield load
            load.wait_for(max(20, REQUESTS - len(load.answers)), event)
        asked = [sum(answer.kind == kind for answer in load.answers) for kind in ("whole", "stream")]
        failed = [len(load.failures(kind)) for kind in ("whole", "stream")]
        self.results.append(f"| {what} | {asked[0]} + {asked[1]} | {failed[0]} + {failed[1]} |")
        print(f"{what}\n{load.table()}")


def has_address(host: Host) -> bool:
    return FLOATING in host.sh("ip -4 address show eth0")
