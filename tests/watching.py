"""A running stack's Prometheus as tests use it: questions, alerts that need not be waited for, expositions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import requests

from stack.adjust import applied
from stack.docker_host import address, containers
from stack.observe import files
from stack.plan.types import Plan
from stack.reload import reload

# Of each alert's wait: 2 minutes are 2 seconds, 4 hours 4 minutes and under one for what is scaled more.
PATIENCE = 0.005


class Watched:
    """One applied stack."""

    def __init__(self, project: str, state: Path, client: docker.DockerClient) -> None:
        self.project, self.client = project, client
        self.live = state / "live"
        self.plan: Plan = applied(self.live)
        self.ports = {entry.service: entry.port for entry in self.plan.published}

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query"
        answer: list[dict[str, Any]] = requests.get(url, params={"query": query}, timeout=10).json()["data"]["result"]
        return answer

    def firing(self, alert: str, **labels: str) -> bool:
        """Whether an alert fires with these labels."""
        chosen = ",".join(f'{name}="{value}"' for name, value in {"alertname": alert, **labels}.items())
        return bool(self.ask(f'ALERTS{{{chosen},alertstate="firing"}}'))

    def until(self, alert: str, firing: bool, seconds: float, **labels: str) -> float:
        """Wait until an alert fires, or no longer does; seconds that took. Fails after `seconds`."""
        began = time.monotonic()
        while self.firing(alert, **labels) != firing:
            assert time.monotonic() - began < seconds, f"{alert} {labels}: firing is not {firing} after {seconds:.0f} s"
            time.sleep(1)
        took = time.monotonic() - began
        print(f"\n{alert} {'fires' if firing else 'is resolved'} after {took:.0f} s", end="")
        return took

    def exposition(self, service: str, network: str, port: int) -> str:
        """The metrics page of a part, as Prometheus reads it."""
        host = address(containers(self.client, self.project)[service], network)
        page = requests.get(f"http://{host}:{port}/metrics", timeout=10)
        page.raise_for_status()
        return page.text

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """The stack's own rules with waits of seconds; the real ones afterwards."""
        real = {path: (self.live / path).read_bytes() for path in files.rule_files(self.plan.as_dict())}
        self._rules(files.rule_files(self.plan.as_dict(), PATIENCE))
        try:
            yield
        finally:
            self._rules(real)

    def _rules(self, rules: dict[str, bytes]) -> None:
        for path, content in rules.items():
            (self.live / path).write_bytes(content)
        reload(self.project, ["prometheus"], {}, self.client)
