"""The modes and the driver of this host's GPUs, as nvidia-smi tells them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.errors import Problem, StackError
from stack.hardware import nvidia_smi

QUERY = "uuid,mig.mode.current,compute_mode,driver_version,persistence_mode"
PROC = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class GpuState:
    """One GPU, its modes as nvidia-smi prints them: Enabled, Disabled or [N/A]; Default, Exclusive_Process ..."""

    uuid: str
    mig: str
    compute_mode: str
    driver: str
    persistence: str = "Enabled"


def read_states() -> dict[str, GpuState]:
    """uuid -> state of each GPU here. Raises StackError when the driver does not answer as it should."""
    states = {}
    for line in nvidia_smi(f"--query-gpu={QUERY}"):
        fields = [part.strip() for part in line.split(",")]
        if len(fields) != len(QUERY.split(",")):
            raise StackError(f"nvidia-smi says {line!r} of a GPU, asked for {QUERY}: update the driver")
        states[fields[0]] = GpuState(*fields)
    return states


def mode_problems(states: Collection[GpuState]) -> Iterator[Problem]:
    """GPUs in a mode in which an engine cannot start, or not with its GPU whole."""
    for state in states:
        if state.mig == "Enabled":
            yield Problem(
                "models",
                f"GPU {state.uuid} is split (MIG is on), and engines take whole GPUs: `nvidia-smi -i {state.uuid}"
                " -mig 0` as root while nobody uses it",
            )
        # nvidia-smi prints Exclusive_Process, the C API's name for one process; Prohibited is none at all
        if state.compute_mode not in ("Default", "[N/A]"):
            yield Problem(
                "models",
                f"GPU {state.uuid} is in compute mode {state.compute_mode}, in which an engine's processes cannot share"
                f" it: `nvidia-smi -i {state.uuid} -c DEFAULT` as root",
            )


def warnings(states: Collection[GpuState]) -> Iterator[str]:
    """What keeps no engine from its GPU and is worth mending."""
    forgetful = sorted(state.uuid for state in states if state.persistence == "Disabled")
    if forgetful:
        yield (
            f"persistence mode is off on GPU {', '.join(forgetful)}: the driver starts anew with every engine;"
            " `systemctl enable --now nvidia-persistenced`"
        )


def device_minors(proc: Path | None = None) -> dict[str, int]:
    """uuid -> N of its /dev/nvidiaN now, as the kernel module says; empty where it does not."""
    minors = {}
    for path in sorted((proc or PROC).glob("*/information")):
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        uuid, minor = lines.get("GPU UUID", "").strip(), lines.get("Device Minor", "").strip()
        if uuid and minor.isdecimal():
            minors[uuid] = int(minor)
    return minors
