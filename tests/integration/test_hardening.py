"""Every container of the running stack, asked from inside what it may do. docs/security.md says why where it may."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from docker.models.containers import Container

from integration.conftest import ENGINES, PROJECT, Stack
from stack.docker_host import containers
from stack.plan.ports import listens
from stack.plan.types import Plan, plan_from
from stack.smoke import services

GATEWAY = ("nginx", "haproxy", "haproxy-standby")
# What a container may write to, beside these, which every container has: its own memory, gone with it.
EVERYWHERE = {"/tmp", "/dev/shm", "/dev/mqueue"}
WRITABLE = {
    "prometheus": {"/prometheus"},
    "alertmanager": {"/alertmanager"},
    **{engine: {"/home/vllm", "/evidence", "/textfile"} for engine in ENGINES},
}
COMPOSE_FILES = ("compose.yaml", "compose/edge.yaml", "compose/observability.yaml")
# Those that this machine's packages come from: names that it resolves, where it resolves any.
APT = [path for path in Path("/etc/apt").rglob("*") if path.suffix in (".list", ".sources")]
SOURCES = re.findall(r"https?://([\w.-]+)", "".join(path.read_text() for path in APT))
PUBLIC_NAMES = tuple(sorted({"example.com", *SOURCES}))


@pytest.fixture
def plan(stack: Stack) -> Plan:
    return plan_from(json.loads((stack.state / "live/plan.json").read_text()))


def every(stack: Stack) -> Iterator[tuple[str, Container]]:
    """Each service of the plan with its container, none of them left out."""
    running = containers(stack.client, PROJECT)
    plan = json.loads((stack.state / "live/plan.json").read_text())
    assert set(running) == set(services(plan))
    yield from sorted(running.items())


def inside(container: Container, script: str) -> str:
    """What a shell in the container prints, as the user that the container runs as."""
    done = container.exec_run(["sh", "-c", script])
    assert done.exit_code == 0, (container.name, script, done.output)
    return cast(bytes, done.output).decode()


def test_no_process_is_root_has_a_capability_or_can_get_one(stack: Stack) -> None:
    for name, container in every(stack):
        # A process that ends while it is read leaves nothing, or a part: only whole ones, from Name to Seccomp, count.
        statuses = inside(container, "for each in /proc/[0-9]*/status; do cat $each 2>/dev/null; echo; done")
        each = [dict(re.findall(r"^(\w+):[ \t]*(.*)$", status, re.M)) for status in statuses.split("\n\n")]
        processes = [process for process in each if {"Name", "Seccomp"} <= set(process)]
        assert any(process["Pid"] == "1" for process in processes), (name, statuses)
        for process in processes:
            who = (name, process["Name"])
            assert "0" not in process["Uid"].split() + process["Gid"].split(), who
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(process[kind], 16) == 0, (who, kind)
            assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2"), who


def test_a_write_to_the_root_fails_and_only_the_listed_mounts_take_one(stack: Stack) -> None:
    for name, container in every(stack):
        assert "Read-only file system" in inside(container, "touch /x 2>&1; true"), name
        found = inside(
            container,
            "while read -r _ where _; do [ -d $where ] && touch $where/.probe 2>/dev/null"
            " && rm -f $where/.probe && echo $where; done < /proc/mounts; true",
        )
        assert set(found.split()) == EVERYWHERE | WRITABLE.get(name, set()), name


def test_memory_processes_and_processor_time_are_limited_as_planned(stack: Stack) -> None:
    planned = rendered_services(stack)
    for name, container in every(stack):
        service = planned[name]
        assert cgroup(container, "memory/memory.limit_in_bytes", "memory.max") == mib(service["mem_limit"]) * 2**20
        assert cgroup(container, "pids/pids.max", "pids.max") == service["pids_limit"]
        shares = service["cpu_shares"]
        assert cgroup(container, "cpu/cpu.shares", "cpu.weight") in (shares, weight(shares)), name
        quota = cgroup(container, "cpu/cpu.cfs_quota_us", "cpu.max")
        assert quota == (service["cpus"] * 100_000 if "cpus" in service else -1), name
        assert int(inside(container, "cat /proc/1/oom_score_adj")) == (500 if name in ENGINES else 0)
    assert {name for name, service in planned.items() if "cpus" not in service} == set(GATEWAY)


def test_an_engine_resolves_the_stacks_names_and_no_public_one(stack: Stack) -> None:
    running = containers(stack.client, PROJECT)
    script = (
        "import socket, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, socket.gethostbyname(name))\n"
        "    except OSError: print(name, '-')"
    )
    for name in ENGINES:
        done = running[name].exec_run(["python3", "-c", script, *PUBLIC_NAMES, "haproxy", ENGINES[1]])
        found = dict(line.split() for line in cast(bytes, done.output).decode().splitlines())
        assert {public: found[public] for public in PUBLIC_NAMES} == dict.fromkeys(PUBLIC_NAMES, "-"), name
        assert "-" not in (found["haproxy"], found[ENGINES[1]]), name
        # what Docker's resolver does not know it would ask this address, in the engine's own network: nobody is there
        assert running[name].attrs["HostConfig"]["Dns"] == ["127.0.0.1"]
    control = stack.client.containers.run(
        cast(Any, running[ENGINES[0]].image), entrypoint=["python3", "-c", script], command=list(PUBLIC_NAMES),
        network=f"{PROJECT}_edge", remove=True,
    )  # fmt: skip
    resolved = [line for line in control.decode().splitlines() if not line.endswith(" -")]
    print(f"\npublic names that a container with a route out resolves: {len(resolved)} of {len(PUBLIC_NAMES)}")
    if not resolved:
        pytest.skip("this machine resolves no public name at all: that an engine does not proves nothing here")


def test_only_the_planned_ports_listen(stack: Stack, plan: Plan) -> None:
    planned = listens(plan)
    for name, container in every(stack):
        sockets = list(listening(container))
        # loopback is the container's own: Docker's resolver, and torch's processes among themselves
        reachable = {port for address, port in sockets if not address.startswith("127.") and address != "::1"}
        assert reachable == planned[name], name
        print(f"\n{name}: {sorted(reachable)}, and {len(sockets) - len(reachable)} on its own loopback", end="")


def test_no_container_is_given_what_is_the_hosts(stack: Stack) -> None:
    for name, container in every(stack):
        host, mounts = container.attrs["HostConfig"], container.attrs["Mounts"]
        assert not host["Privileged"], name
        assert "host" not in (host["NetworkMode"], host["PidMode"], host["IpcMode"], host["UTSMode"]), name
        assert not host["Devices"], name
        assert not host["CapAdd"], name
        assert not [mount for mount in mounts if "docker.sock" in mount["Source"]], name
        sources = {mount["Source"] for mount in mounts if mount["Type"] == "bind"}
        assert ("/" in sources) == (name == "node-exporter"), name  # read-only: its numbers are the host's
        assert {mount["Propagation"] for mount in mounts if mount["Type"] == "bind"} <= {"rprivate", "", "rslave"}, name
        assert not any("unconfined" in option for option in host["SecurityOpt"]), name


def test_the_node_exporter_sees_no_socket_of_the_host(stack: Stack) -> None:
    exporter = containers(stack.client, PROJECT)["node-exporter"]
    assert inside(exporter, "ls -A /host/run /host/dev").split() == ["/host/dev:", "/host/run:"]
    assert inside(exporter, "head -c 4 /host/proc/uptime"), "and yet what it is there for"


def rendered_services(stack: Stack) -> dict[str, dict[str, Any]]:
    live = stack.state / "live"
    files = [yaml.safe_load((live / name).read_text()) for name in COMPOSE_FILES]
    return {name: service for file in files for name, service in file["services"].items()}


def mib(limit: str) -> int:
    assert limit.endswith("m")
    return int(limit[:-1])


def weight(shares: int) -> int:
    """What runc makes of shares on cgroups of version 2."""
    return 1 + (shares - 2) * 9999 // 262142


def cgroup(container: Container, first: str, second: str) -> float:
    """A number of the container's own cgroup, of version 1 or 2; a quota in microseconds, -1 for none."""
    text = inside(container, f"cat /sys/fs/cgroup/{first} 2>/dev/null || cat /sys/fs/cgroup/{second}").split()[0]
    return -1 if text == "max" else float(text)


def listening(container: Container) -> Iterator[tuple[str, int]]:
    """(address, port) of every TCP socket that listens and every UDP socket that anybody may send to."""
    for line in inside(container, "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6").splitlines():
        fields = line.split()
        if fields[0] != "sl" and fields[3] in ("0A", "07"):
            address, _, port = fields[1].partition(":")
            yield readable(address), int(port, 16)


def readable(address: str) -> str:
    if len(address) == 8:
        return ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
    return "::1" if address == "0" * 24 + "01000000" else "::"
