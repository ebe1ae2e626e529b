"""The parts of a diagnosis that Docker, the containers, Prometheus and Alertmanager tell."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import docker
import requests

from stack.day2.diagnose import Part
from stack.docker_host import PROJECT_LABEL, address, asked_at, containers, get_page
from stack.inputs import Place
from stack.smoke import services

PAGE_SECONDS, DOCKER_SECONDS = 8.0, 20
SEEN_OF_OTHERS = ("Names", "Image", "State", "Status")
# Of the parts that are no engine: network, port, page.
PAGES = {
    "grafana": ("inner", 3000, "/metrics"),
    "haproxy": ("inner", 8405, "/metrics"),
    "haproxy-standby": ("inner", 8405, "/metrics"),
    "nginx": ("inner", 8406, "/metrics"),
}
# The last hour, a point a minute: what a person looks at first.
RANGES: Mapping[str, str] = {
    "up": "up",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv-cache": "vllm:kv_cache_usage_perc",
    "generated-tokens": "rate(vllm:generation_tokens_total[5m])",
    "time-to-first-token-p99": "histogram_quantile(0.99, sum by (le, model)"
    " (rate(vllm:time_to_first_token_seconds_bucket[5m])))",
    "watchdog-kills": "vllm_onprem_engine_watchdog_kills_total",
}
PROMETHEUS_PAGES = ("targets?state=active", "rules", "alerts", "status/runtimeinfo", "status/tsdb", "status/flags")
ALERTMANAGER_PAGES = ("alerts", "silences", "status")


def parts(place: Place, lines: int) -> Iterator[Part]:
    """What can be asked of a stack that may be half there. lines: of each container's log."""
    yield Part("docker", partial(_docker, place.project))
    for name in _expected(place):
        yield Part(f"container {name}", partial(_container, place.project, name, lines))
        yield Part(f"metrics of {name}", partial(_metrics, place.project, name))
    ports = _ports(place)
    if "prometheus" in ports:
        base = f"http://127.0.0.1:{ports['prometheus']}/api/v1/"
        for page in PROMETHEUS_PAGES:
            name = page.split("?", 1)[0].replace("/", "-")
            yield Part(f"Prometheus {page}", partial(_page, f"prometheus/{name}.json", base + page))
        for name, query in RANGES.items():
            yield Part(f"Prometheus {name}", partial(_range, name, base, query))
    if "alertmanager" in ports:
        base = f"http://127.0.0.1:{ports['alertmanager']}/api/v2/"
        for page in ALERTMANAGER_PAGES:
            yield Part(f"Alertmanager {page}", partial(_page, f"alertmanager/{page}.json", base + page))


def _expected(place: Place) -> list[str]:
    """Services of the applied plan, and whatever else runs under the stack's name."""
    try:
        names = services(json.loads((place.live / "plan.json").read_text()))
    except (OSError, ValueError, LookupError, TypeError):
        names = []
    with contextlib.suppress(Exception):  # the part `docker` says what is wrong with it
        names += [name for name in containers(_client(), place.project) if name not in names]
    return names


def _ports(place: Place) -> dict[str, int]:
    try:
        plan = json.loads((place.live / "plan.json").read_text())
        return {entry["service"]: int(entry["port"]) for entry in plan["published"]}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _client() -> docker.DockerClient:
    return docker.from_env(timeout=DOCKER_SECONDS)


def _docker(project: str) -> dict[str, str]:
    client = _client()
    mine = {"label": f"{PROJECT_LABEL}={project}"}
    found: dict[str, Any] = {
        "version": client.version(),
        "info": client.info(),
        "ps": client.api.containers(all=True, filters=mine),
        "everybodys": [{key: one.get(key) for key in SEEN_OF_OTHERS} for one in client.api.containers(all=True)],
        "images": client.api.images(),
        "networks": client.api.networks(filters=mine),
        "volumes": client.api.volumes(filters=mine),
    }
    return {f"docker/{name}.json": json.dumps(value, indent=1, default=str) for name, value in found.items()}


def _container(project: str, name: str, lines: int) -> dict[str, str]:
    part = containers(_client(), project).get(name)
    if part is None:
        raise LookupError("there is no such container")
    log = part.logs(tail=lines, timestamps=True).decode(errors="replace")
    return {f"containers/{name}.json": json.dumps(part.attrs, indent=1), f"containers/{name}.log": log}


def _metrics(project: str, name: str) -> dict[str, str]:
    part = containers(_client(), project).get(name)
    if part is None:
        raise LookupError("there is no such container")
    where, page = asked_at(part), "/metrics"
    if not name.startswith("engine-"):
        network, port, page = PAGES.get(name, ("", 0, ""))
        if not page:
            return {}
        where = f"{here}:{port}" if (here := address(part, network)) else None
    if where is None:
        raise LookupError("it has no address: it is not running, or follows another part")
    return {f"metrics/{name}.txt": get_page(f"http://{where}{page}", timeout=PAGE_SECONDS)}


def _page(path: str, url: str) -> dict[str, str]:
    return {path: get_page(url, timeout=PAGE_SECONDS)}


def _range(name: str, base: str, query: str) -> dict[str, str]:
    end = int(time.time())
    asked = requests.Request(
        "GET", f"{base}query_range", params={"query": query, "start": str(end - 3600), "end": str(end), "step": "60"}
    ).prepare()
    return {f"prometheus/last-hour/{name}.json": get_page(str(asked.url), timeout=PAGE_SECONDS)}
