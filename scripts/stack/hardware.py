"""The hosts and GPUs a plan may use: read from a hosts file, or found on this box."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stack.config.fields import Name
from stack.config.problems import problems_of
from stack.errors import InputError, Problem, StackError
from stack.yaml_input import load_mapping

# What a GPU that nobody uses holds: driver and persistence daemon take up to a few hundred MiB.
IDLE_MEMORY_MIB = 512

Role = Literal["engines", "gateway", "observability"]
ROLES: tuple[Role, ...] = ("engines", "gateway", "observability")
# RFC 1918, and RFC 6598 where many overlay networks have their addresses
_PRIVATE = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]


def _private(value: str) -> str:
    try:
        address = IPv4Address(value)
    except ValueError:
        raise ValueError("an IPv4 address that the other hosts reach this one by") from None
    if not any(address in network for network in _PRIVATE):
        raise ValueError(f"not an address of a private network: {', '.join(map(str, _PRIVATE))}")
    return str(address)


class Gpu(BaseModel):
    """One GPU. uuid as nvidia-smi prints it (indices move with a reboot); memory in MiB as the driver reports.

    Optional, from `nvidia-smi topo -m`: nvlink, a number for each set of GPUs that reach one another over NVLink; numa,
    the memory node. Neighbours serve one engine together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    uuid: Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9a-fA-F-]{8,}$")]
    model: Annotated[str, Field(max_length=100)]
    memory_mib: int = Field(ge=1)
    nvlink: int | None = Field(None, ge=0)
    numa: int | None = Field(None, ge=0)


class Host(BaseModel):
    """One machine, the GPUs of it that the stack may take, and its memory in MiB where that is known.

    roles: which parts of the stack it runs, None for all. address: what the other hosts of a fleet reach it by.
    interface: where a gateway host answers to the floating address.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name = "localhost"
    gpus: tuple[Gpu, ...] = Field((), strict=False)
    memory_mib: int | None = Field(None, ge=1)
    roles: tuple[Role, ...] | None = Field(None, min_length=1, strict=False)
    address: Annotated[str, AfterValidator(_private)] | None = None
    interface: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")] | None = None

    def has(self, role: Role) -> bool:
        """Whether it runs this part of the stack."""
        return self.roles is None or role in self.roles


class HostsFile(BaseModel):
    """A hosts file: ``hosts: [{name, memory_mib, gpus, roles, address, interface}]``, and for each of the gpus
    ``{uuid, model, memory_mib, nvlink, numa}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hosts: tuple[Host, ...] = Field(min_length=1, strict=False)


def load_hosts(path: Path) -> tuple[Host, ...]:
    """Hosts of a hosts file. Raises InputError with every problem, those of a fleet among them."""
    document = load_mapping(path)
    try:
        hosts = HostsFile.model_validate(document).hosts
    except ValidationError as error:
        raise InputError(str(path), problems_of(error, HostsFile)) from None
    problems: list[Problem] = []
    names: set[str] = set()
    uuids: set[str] = set()
    for index, host in enumerate(hosts):
        if host.name in names:
            problems.append(Problem(f"hosts[{index}].name", f"{host.name!r} is given twice"))
        names.add(host.name)
        for place, gpu in enumerate(host.gpus):
            if gpu.uuid in uuids:
                problems.append(Problem(f"hosts[{index}].gpus[{place}].uuid", f"{gpu.uuid} is given twice"))
            uuids.add(gpu.uuid)
    problems += _fleet_problems(hosts)
    if problems:
        raise InputError(str(path), problems)
    return hosts


def is_fleet(hosts: Sequence[Host]) -> bool:
    """Whether the hosts are one stack together: one of them leaves a role to the others."""
    return any(not host.has(role) for host in hosts for role in ROLES)


def _fleet_problems(hosts: Sequence[Host]) -> Iterator[Problem]:
    for index, host in enumerate(hosts):
        if host.roles and len(set(host.roles)) < len(host.roles):
            yield Problem(f"hosts[{index}].roles", "a role is given twice")
        if host.gpus and not host.has("engines"):
            what = f"{host.name!r} has GPUs and not the role engines: add it, or leave the GPUs out"
            yield Problem(f"hosts[{index}].gpus", what)
    if not is_fleet(hosts):
        return
    for role in ROLES:
        if not any(host.has(role) for host in hosts):
            yield Problem("hosts", f"no host has the role {role}; a fleet needs one")
    watching = [index for index, host in enumerate(hosts) if host.has("observability")]
    for index in watching[1:]:
        why = "" if hosts[index].roles else "; roles left out are all of them"
        first = hosts[watching[0]].name
        yield Problem(f"hosts[{index}].roles", f"observability is on {first!r} already, and belongs on one host{why}")
    seen: dict[str, str] = {}
    for index, host in enumerate(hosts):
        where = f"hosts[{index}].address"
        if host.address is None:
            yield Problem(where, f"this key is needed in a fleet: the other hosts reach {host.name!r} by it")
        elif host.address in seen:
            yield Problem(where, f"{host.address} is the address of {seen[host.address]!r} already")
        else:
            seen[host.address] = host.name


def save_hosts(path: Path, hosts: tuple[Host, ...]) -> None:
    """Write a hosts file that load_hosts reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"hosts": [host.model_dump(mode="json", exclude_none=True) for host in hosts]}
    path.write_text(
        "# Written by `make up`: the GPUs this stack took. Delete the file to choose again.\n"
        + yaml.safe_dump(document, sort_keys=False)
    )


def memory_here() -> int:
    """This box's memory in MiB, as its kernel counts it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def find_gpus() -> tuple[tuple[Gpu, ...], tuple[Gpu, ...]]:
    """(idle, busy) GPUs of this box. Busy: a compute process, or more than IDLE_MEMORY_MIB in use.

    Raises StackError when the driver does not answer.
    """
    if not shutil.which("nvidia-smi"):
        return (), ()
    working = set(nvidia_smi("--query-compute-apps=gpu_uuid"))
    idle: list[Gpu] = []
    busy: list[Gpu] = []
    for line in nvidia_smi("--query-gpu=uuid,name,memory.total,memory.used"):
        try:
            uuid, model, total, used = (part.strip() for part in line.split(","))
            gpu, used_mib = Gpu(uuid=uuid, model=model, memory_mib=int(total)), int(used)
        except ValueError:
            raise StackError(f"nvidia-smi says {line!r} of a GPU: its memory has to be known (is MIG on?)") from None
        (busy if uuid in working or used_mib > IDLE_MEMORY_MIB else idle).append(gpu)
    return tuple(idle), tuple(busy)


def nvidia_smi(query: str) -> list[str]:
    """Lines of an answer, without head and units. Raises StackError when the driver does not answer."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        raise StackError("nvidia-smi does not answer within 30 s: the driver hangs; see `dmesg`, then reboot") from None
    if done.returncode == 6:  # "No devices were found"
        return []
    if done.returncode:
        raise StackError(f"nvidia-smi failed ({done.returncode}): {(done.stdout + done.stderr).strip()}")
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
