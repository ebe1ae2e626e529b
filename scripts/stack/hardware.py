"""The hosts and GPUs a plan may use: read from a hosts file, or found on this box."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stack.config.fields import Name
from stack.config.problems import problems_of
from stack.errors import InputError, Problem, StackError
from stack.yaml_input import load_mapping

# What a GPU that nobody uses holds: driver and persistence daemon take up to a few hundred MiB.
IDLE_MEMORY_MIB = 512


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
    """One machine, the GPUs of it that the stack may take, and its memory in MiB where that is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name = "localhost"
    gpus: tuple[Gpu, ...] = Field((), strict=False)
    memory_mib: int | None = Field(None, ge=1)


class HostsFile(BaseModel):
    """A hosts file: ``hosts: [{name, memory_mib, gpus: [{uuid, model, memory_mib, nvlink, numa}]}]``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hosts: tuple[Host, ...] = Field(min_length=1, strict=False)


def load_hosts(path: Path) -> tuple[Host, ...]:
    """Hosts of a hosts file. Raises InputError with every problem; a name or a GPU given twice is one."""
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
    if problems:
        raise InputError(str(path), problems)
    return hosts


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
