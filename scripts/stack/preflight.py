"""What must hold on this host before anything is changed. Every problem at once."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
from docker.models.containers import Container

from stack.console import say
from stack.docker_host import FOLDER_LABEL, containers, ports_of
from stack.errors import InputError, Problem
from stack.gpu import cdi, cuda, state
from stack.hardware import find_gpus
from stack.images.pins import load_pins
from stack.inputs import ROOT, Inputs
from stack.plan.fleet_ports import KERNELS_PORTS
from stack.plan.fleet_types import Opening
from stack.plan.types import Plan, Published

# Logs, metrics and caches of a few hours; images and models are checked where they are made.
FREE_DISK_GIB = 2
LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> None:
    """Ports free, disk space, cores as many as asked for, GPUs usable by containers. Raises InputError."""
    running = containers(client, plan.project)
    problems = [*_name(inputs, running), *_ports(plan, running), *kernels_ports(plan), *_disk(inputs)]
    problems += [*_cores(inputs, plan, client), *_gpus(plan, running, client)]
    if problems:
        raise InputError(inputs.shown, problems)


def _name(inputs: Inputs, running: Mapping[str, Container]) -> Iterator[Problem]:
    folders = {container.labels.get(FOLDER_LABEL, "") for container in running.values()}
    for folder in sorted(folders - {str(inputs.live)}):
        yield Problem("name", f"a stack {inputs.config.name!r} already runs here from {folder}; choose another name")


def _ports(plan: Plan, running: Mapping[str, Container]) -> Iterator[Problem]:
    ours = {port for container in running.values() if container.status == "running" for port in ports_of(container)}
    for wanted in plan.ports:
        if wanted.port not in ours and (cause := cannot_bind(wanted)):
            yield Problem(
                wanted.key,
                f"port {wanted.port} on {wanted.address} cannot be used: {cause}; `ss -ltnp 'sport = {wanted.port}'`"
                " shows who has it, or set another port",
            )


def cannot_bind(wanted: Published | Opening) -> str | None:
    """Why a port cannot be had; None when it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.address, wanted.port))
        except PermissionError:
            return None  # below 1024 and not root: Docker's daemon binds it
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


def kernels_ports(plan: Plan, setting: Path = LOCAL_PORTS) -> Iterator[Problem]:
    """What parts of a replica over several hosts listen on has to be what the firewall closes to others."""
    if plan.fleet is None or not plan.fleet.parts:
        return
    first, last = map(int, setting.read_text().split())
    if first < KERNELS_PORTS[0] or last > KERNELS_PORTS[1]:
        allowed = " ".join(map(str, KERNELS_PORTS))
        what = f"net.ipv4.ip_local_port_range is {first} {last} here, and the firewall closes {allowed} for parts of a"
        yield Problem("models", f"{what} replica over several hosts: keep it within those (`sysctl`, /etc/sysctl.d)")


def _disk(inputs: Inputs) -> Iterator[Problem]:
    folder = inputs.state
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if free < FREE_DISK_GIB:
        yield Problem("paths.state", f"{folder} has {free:.1f} GiB free, {FREE_DISK_GIB} GiB are needed")


def _cores(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> Iterator[Problem]:
    """Docker starts no container that may use more than there are. Of a fleet's models those count that run here."""
    limits = {engine.served_model_name: engine.cpu_limit for engine in plan.engines if engine.cpu_limit is not None}
    here = client.info()["NCPU"] if limits else 0
    for place, model in enumerate(inputs.config.models):
        limit = limits.get(model.served_model_name)
        if limit is not None and limit > here:
            what = f"{limit:g} cores for an engine, and Docker has {here} here; set a lower one, or leave it out"
            yield Problem(f"models[{place}].cpu_limit", what)


def _gpus(plan: Plan, running: Mapping[str, Container], client: docker.DockerClient) -> Iterator[Problem]:
    wanted = {uuid for engine in plan.engines for uuid in engine.gpus}
    if not wanted:
        return
    idle, busy = find_gpus()
    missing = sorted(wanted - {gpu.uuid for gpu in (*idle, *busy)})
    if missing:
        yield Problem("models", f"GPU {', '.join(missing)} is not in this box (see `nvidia-smi -L`)")
    ours = {
        uuid
        for container in running.values()
        if container.status == "running"
        for request in container.attrs["HostConfig"].get("DeviceRequests") or ()
        for uuid in map(cdi.uuid_of, request.get("DeviceIDs") or ())
    }
    others = sorted((wanted - ours) & {gpu.uuid for gpu in busy})
    if others:
        yield Problem(
            "models",
            f"GPU {', '.join(others)} was this stack's, and somebody else uses it now (see `nvidia-smi`); wait, or"
            f" delete {plan.state_dir}/hosts.yaml to choose from the idle GPUs",
        )
    here = state.read_states() if wanted - set(missing) else {}
    used = [here[uuid] for uuid in sorted(wanted) if uuid in here]
    for warning in state.warnings(used):
        say(f"warning: {warning}")
    yield from state.mode_problems(used)
    yield from cdi.problems(wanted - set(missing), client.info(), state.device_minors())
    pin = load_pins(ROOT).vllm["cuda"]
    yield from cuda.problems(pin.cuda, [gpu.driver for gpu in used], pin.reference)


def check_image(inputs: Inputs, plan: Plan, client: docker.DockerClient) -> None:
    """The CUDA that the engine's image itself says it was built on, once it is here. Raises InputError."""
    if plan.device != "cuda":
        return
    image = plan.images["vllm"]
    major = cuda.major_in(client.images.get(image).attrs["Config"].get("Env"))
    problems = list(cuda.problems(major, [gpu.driver for gpu in state.read_states().values()], image))
    if problems:
        raise InputError(inputs.shown, problems)
