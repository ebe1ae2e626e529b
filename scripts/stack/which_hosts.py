"""The hosts that a plan is for: those of a hosts file, or this box with the GPUs that its stack took or may take."""

from __future__ import annotations

import argparse
from pathlib import Path

from stack import cordons
from stack.config.schema import StackConfig
from stack.errors import InputError, StackError
from stack.hardware import Gpu, Host, find_gpus, load_hosts, memory_here


def which_hosts(config: StackConfig, arguments: argparse.Namespace, state: Path) -> tuple[Host, ...]:
    """state: the stack's own folder. Raises InputError, and StackError for a GPU that was taken and is gone."""
    if arguments.hosts is not None:
        hosts = load_hosts(arguments.hosts)
        if arguments.host is None:
            return hosts
        chosen = tuple(host for host in hosts if host.name == arguments.host)
        if not chosen:
            names = ", ".join(host.name for host in hosts)
            raise InputError(str(arguments.hosts), f"no host {arguments.host!r}; there are: {names}")
        return chosen
    if config.device == "cpu":
        return (Host(),)
    return (Host(gpus=_gpus_here(state), memory_mib=memory_here()),)


def taken_file(state: Path) -> Path:
    """Where the GPUs are kept that the stack took."""
    return state / "hosts.yaml"


def taken_gpus(state: Path) -> tuple[Gpu, ...]:
    """The GPUs of this box that the stack took earlier."""
    known = taken_file(state)
    return load_hosts(known)[0].gpus if known.is_file() else ()


def _gpus_here(state: Path) -> tuple[Gpu, ...]:
    idle, busy = find_gpus()
    here = {gpu.uuid: gpu for gpu in (*idle, *busy)}
    # the stack's own engines make its GPUs busy: what it took stays its own, and comes first. A cordoned GPU keeps its
    # place, so that every replica keeps its own, even where the driver has lost it; one that was free is not taken.
    cordoned = cordons.cordoned(state)
    earlier = {gpu.uuid: gpu for gpu in taken_gpus(state)}
    here = {uuid: gpu for uuid, gpu in earlier.items() if uuid in cordoned} | here
    gone = [uuid for uuid in earlier if uuid not in here]
    if gone:
        raise StackError(
            f"{taken_file(state)}: GPU {', '.join(gone)} is not in this box any more (see `nvidia-smi -L`);"
            " delete the file to choose from the GPUs that are here"
        )
    return (*(here[uuid] for uuid in earlier), *(gpu for gpu in idle if gpu.uuid not in {*earlier, *cordoned}))
