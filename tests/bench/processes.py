"""Peers as processes on loopback: vllm-router and LiteLLM's proxy, from .bench-venv. Each is ended by its own id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from stack.errors import StackError

BIN = Path(__file__).resolve().parents[2] / ".bench-venv/bin"
START_SECONDS = 240


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def vllm_router(engines: Sequence[str], policy: str, scratch: Path) -> Iterator[str]:
    """URL of a vllm-router in front of these engine URLs. policy: round_robin or cache_aware."""
    port = free_port()
    command = ["vllm-router", "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()),
               "--policy", policy, "--log-level", "error", "--worker-urls", *engines]  # fmt: skip
    with _running(command, port, "/health", scratch / f"vllm-router-{policy}.log") as url:
        yield url


@contextmanager
def litellm(engines: Sequence[str], model: str, key: str, workers: int, scratch: Path) -> Iterator[str]:
    """URL of LiteLLM's proxy in front of these engine URLs, without retries, price downloads or telemetry."""
    upstream = {"model": f"openai/{model}", "api_key": "none"}
    deployments = [{"model_name": model, "litellm_params": {**upstream, "api_base": f"{url}/v1"}} for url in engines]
    settings = {
        "model_list": deployments,
        "general_settings": {"master_key": key},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
    path = scratch / "litellm.yaml"
    path.write_text(json.dumps(settings))
    port = free_port()
    command = ["litellm", "--host", "127.0.0.1", "--port", str(port), "--config", str(path), "--telemetry", "False",
               "--num_workers", str(workers), "--run_gunicorn"]  # fmt: skip
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    with _running(command, port, "/health/liveliness", scratch / "litellm.log", quiet) as url:
        yield url


@contextmanager
def _running(
    command: Sequence[str], port: int, health: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    without_proxies = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        # a session of its own: its workers are ended with it, and nothing else is
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=log.parent, env={**without_proxies, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(f"{url}{health}", process, log)
        yield url
    finally:
        for sign, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, sign)
                process.wait(seconds)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if requests.get(url, timeout=2).status_code == 200:
                return
        except requests.RequestException:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise StackError(f"{log.stem} did not answer on {url}:\n{tail}")
        time.sleep(0.2)
