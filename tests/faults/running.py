"""The parts of the running stack as these tests see and hurt them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

import requests
from docker.models.containers import Container
from docker.models.images import Image

from integration.conftest import ENGINES, PROJECT, URL, Stack
from stack.docker_host import address, condition

ENGINE_START = 600  # seconds a CPU engine may take to start beside other work: nothing here asserts a speed
STUB = Path(__file__).with_name("stub_engine.py")


def ask(stack: Stack, tokens: int = 2, timeout: float = 30.0) -> requests.Response:
    """One completion through the gateway, never retried."""
    body = {"model": "toy", "prompt": "x", "max_tokens": tokens, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {stack.key}"}
    return requests.post(
        f"{URL}/v1/completions", json=body, headers=headers, verify=str(stack.ca_file), timeout=timeout
    )  # fmt: skip


def haproxy(stack: Stack, metric: str, server: str, service: str = "haproxy") -> float:
    """What one HAProxy counts for a replica; metric with the labels that matter, such as `x{state="UP"}`."""
    text = requests.get(f"http://{address(stack.part(service), 'inner')}:8405/metrics", timeout=5).text
    name, _, labels = metric.partition("{")
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{") and f'server="{server}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if labels.rstrip("}") in line)


def in_pool(stack: Stack, engine: str) -> bool:
    """Whether HAProxy gives this replica requests."""
    return haproxy(stack, 'haproxy_server_status{state="UP"}', engine) == 1


def until(true: Callable[[], bool], began: float, limit: float, what: str) -> float:
    """Seconds from began (monotonic) to when it became true; fails after the limit."""
    while not true():
        assert time.monotonic() - began < limit, f"not {what} after {limit:.0f} s"
        time.sleep(0.2)
    print(f"\n{what} after {time.monotonic() - began:.1f} s", end="")
    return time.monotonic() - began


def processes(container: Container) -> list[tuple[int, int]]:
    """(pid, parent's pid) as this host numbers them; the container's init first."""
    return [(int(row[1]), int(row[2])) for row in container.top()["Processes"]]


def hit(container: Container, number: signal.Signals, *, server_only: bool = False) -> None:
    """A signal to everything in an engine's container but its init, or to vLLM's API server only."""
    init = int(container.attrs["State"]["Pid"])
    for pid, parent in processes(container):
        if pid != init and (parent == init or not server_only):
            with suppress(ProcessLookupError):  # one of a health check, which is over meanwhile
                os.kill(pid, number)


def all_serve(stack: Stack) -> None:
    """Return when every engine is healthy and in the pool."""
    began = time.monotonic()
    for engine in ENGINES:
        until(partial(healthy, stack, engine), began, ENGINE_START, f"{engine} healthy")
        until(partial(in_pool, stack, engine), began, ENGINE_START + 60, f"{engine} in the pool")


def healthy(stack: Stack, engine: str) -> bool:
    """What Docker says of an engine."""
    return condition(stack.part(engine)) == "healthy"


@contextmanager
def engines_stopped(stack: Stack) -> Iterator[None]:
    """Room for stand-ins under the engines' names."""
    real = [stack.part(name) for name in ENGINES]
    try:
        for engine in real:
            engine.stop(timeout=20)
        yield
    finally:
        for engine in real:
            engine.start()
        all_serve(stack)


@contextmanager
def stubs(stack: Stack, first: str, second: str) -> Iterator[tuple[Container, Container]]:
    """Stand-ins for both engines, of these modes: the same containers, watchdog and all, with another program in them.

    One that ended is not started again.
    """
    started: list[Container] = []
    for name in ENGINES:
        until(lambda name=name: not in_pool(stack, name), time.monotonic(), 60, f"{name} gone")  # type: ignore[misc]
    try:
        for name, mode in zip(ENGINES, (first, second), strict=True):
            started.append(_stub(stack, stack.part(name), name, mode))
        began = time.monotonic()
        for name in ENGINES:
            until(partial(in_pool, stack, name), began, 60, f"stub {name} in the pool")
        yield started[0], started[1]
    finally:
        for stub in started:
            stub.remove(force=True, v=True)


def asked(stub: Container, prompt: str) -> int:
    """Requests with this prompt that reached a stub."""
    return stub.logs().decode().count(f"asked {prompt}\n")


def ended(stub: Container) -> bool:
    """Whether a stub's process is over."""
    stub.reload()
    return str(stub.status) == "exited"


def _stub(stack: Stack, engine: Container, name: str, mode: str) -> Container:
    config, network = engine.attrs["Config"], f"{PROJECT}_engines"
    mounts = {
        mount["Source"]: {"bind": mount["Destination"], "mode": "rw" if mount["RW"] else "ro"}
        for mount in engine.attrs["Mounts"]
        if mount["Type"] == "bind"
    }
    stub = stack.client.containers.create(
        cast("Image", engine.image), entrypoint=["python3", "/stub_engine.py"], command=[mode], detach=True, init=True,
        environment=config["Env"], user=config["User"], healthcheck=config["Healthcheck"],
        volumes=mounts | {str(STUB): {"bind": "/stub_engine.py", "mode": "ro"}}, network=network,
        networking_config={network: stack.client.api.create_endpoint_config(aliases=[name])},
    )  # fmt: skip
    stub.start()
    return stub
