"""Make running parts read their files again, without dropping a request, and see that they did."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

import docker
import requests
from docker.models.containers import Container

from stack.docker_host import address, containers, get_page
from stack.errors import StackError
from stack.render import nginx_revision

SECONDS = 20.0  # nginx and HAProxy start new workers, Prometheus reads its rules


class _Part:
    """One part: its signal, the page that tells which configuration runs, and what on that page changes."""

    def __init__(self, signal: str, port: int, path: str, pattern: str) -> None:
        self.signal = signal
        self._page = f":{port}{path}"
        self._pattern = re.compile(pattern, re.MULTILINE)

    def running(self, container: Container) -> str | None:
        """The configuration that the part says it runs."""
        try:
            text = get_page(f"http://{address(container, 'inner')}{self._page}", timeout=5)
        except requests.RequestException:
            return None
        found = self._pattern.search(text)
        return found.group(1) if found else None


# The time of the last good reload. Not HAProxy's: that is in whole seconds, and a drain and a reload may share one.
_TIME = r"^%s ([0-9.e+]+)$"
_PARTS = {
    "nginx": _Part("HUP", 8406, "/health", r"^revision ([0-9a-f]+)$"),
    "haproxy": _Part("USR2", 8405, "/health", r"^worker ([0-9]+)$"),
    "haproxy-standby": _Part("USR2", 8405, "/health", r"^worker ([0-9]+)$"),
    "prometheus": _Part("HUP", 9090, "/metrics", _TIME % "prometheus_config_last_reload_success_timestamp_seconds"),
    "blackbox-exporter": _Part(
        "HUP", 9115, "/metrics", _TIME % "blackbox_exporter_config_last_reload_success_timestamp_seconds"
    ),
    "alertmanager": _Part("HUP", 9093, "/metrics", _TIME % "alertmanager_config_last_reload_success_timestamp_seconds"),
}
RELOADABLE = tuple(_PARTS)
SERVICES = {"haproxy": ("haproxy", "haproxy-standby")}  # of a unit of the manifest, where it has another name


def services_of(units: Iterable[str]) -> list[str]:
    """The services that read the files of these units."""
    return sorted(service for unit in units for service in SERVICES.get(unit, (unit,)))


def reload(project: str, services: Sequence[str], files: Mapping[str, bytes], client: docker.DockerClient) -> None:
    """Signal each service that runs, and wait until it runs these files.

    Raises StackError naming those that go on with what they had: they found the new files unusable.
    """
    running = {name: part for name, part in containers(client, project).items() if part.status == "running"}
    signalled = [name for name in services if name in running]
    before = {name: _PARTS[name].running(running[name]) for name in signalled}
    for name in signalled:
        # from inside: Docker takes any signal of its own for a stop, and would not start a part again that dies later
        # or that the machine's next boot should bring back (moby/moby#41302)
        running[name].exec_run(["sh", "-c", f"kill -{_PARTS[name].signal} 1"])
    deadline = time.monotonic() + SECONDS
    waiting = list(signalled)
    while waiting:
        waiting = [name for name in waiting if not _done(name, running[name], before[name], files)]
        if waiting and time.monotonic() > deadline:
            raise StackError(
                f"{', '.join(waiting)} did not take the new configuration within {SECONDS:.0f} s and goes on with"
                f" the old one: `make logs SERVICE={waiting[0]}` says why"
            )
        time.sleep(0.1)


def _done(name: str, container: Container, before: str | None, files: Mapping[str, bytes]) -> bool:
    now = _PARTS[name].running(container)
    if name == "nginx":
        return now == nginx_revision(files)["revision"]
    return now is not None and now != before
