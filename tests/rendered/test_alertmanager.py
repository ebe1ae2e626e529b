"""The image's own Alertmanager, with a rendered configuration: who is inhibited, who is told, what is silenced."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import requests
from docker.models.containers import Container

from rendered.conftest import Programs
from stack.observe import alertmanager, silences
from stack.plan.types import Published
from unit import given

RECEIVERS = [
    {"name": "pager", "severities": ["page"], "webhook": {"url": "http://a.example/"}},
    {"name": "desk", "severities": ["ticket", "watchdog"], "webhook": {"url": "http://b.example/"}},
]
PLAN = replace(
    given.plan(given.config(given.toy(replicas=2), observability={"receivers": RECEIVERS})),
    published=(Published("alertmanager", "127.0.0.1", 29093, ""),),
)


@pytest.fixture(scope="module")
def running(programs: Programs) -> Iterator[Container]:
    folder = programs.scratch / "alertmanager"
    folder.mkdir()
    (folder / "alertmanager.yml").write_bytes(alertmanager.configuration(PLAN.watch))
    part = programs.client.containers.run(
        programs.images["alertmanager"], entrypoint=["alertmanager"], detach=True, user="65534:65534",
        command=["--config.file=/etc/am/alertmanager.yml", "--storage.path=/tmp/am", "--cluster.listen-address="],
        volumes={str(folder): {"bind": "/etc/am", "mode": "ro"}}, tmpfs={"/tmp": "mode=1777"},
        ports={"9093/tcp": ("127.0.0.1", 29093)},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get("http://127.0.0.1:29093/-/ready", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                assert time.monotonic() < deadline, part.logs()
                time.sleep(0.2)
        yield part
    finally:
        part.remove(force=True, v=True)


def api(method: str, path: str, body: Any = None) -> Any:
    answer = requests.request(method, f"http://127.0.0.1:29093/api/v2/{path}", json=body, timeout=10)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def states(*labels: dict[str, str]) -> dict[str, str]:
    """`name` label -> state, once every alert has been looked at."""
    api("POST", "alerts", [{"labels": entry} for entry in labels])
    deadline = time.monotonic() + 40
    while True:
        found = {alert["labels"]["name"]: alert["status"]["state"] for alert in api("GET", "alerts")}
        found = {entry["name"]: found.get(entry["name"], "") for entry in labels}
        if "unprocessed" not in found.values() or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def test_a_host_that_is_down_silences_its_engines_and_only_those(running: Container) -> None:
    engine = {"alertname": "EngineDown", "about": "engine"}
    assert states(
        {"alertname": "HostDown", "host": "a", "about": "host", "name": "the host"},
        {**engine, "host": "a", "name": "its engine"},
        {**engine, "host": "b", "name": "another's engine"},
        {**engine, "name": "an engine without a host"},
        {"alertname": "GpuXid", "host": "a", "name": "its GPU"},
        {"alertname": "TargetDown", "host": "a", "name": "its parts"},
    ) == {
        "the host": "active",
        "its engine": "suppressed",
        "another's engine": "active",
        "an engine without a host": "active",
        "its GPU": "active",
        "its parts": "active",
    }


def test_a_planned_change_silences_what_it_causes_and_nothing_else(running: Container) -> None:
    plan, host = PLAN.as_dict(), PLAN.host
    gone = {"host": host, "server": "engine-toy-0"}
    with silences.silenced(plan, "engine-toy-0", 600, "a test"):
        assert states(
            *({"alertname": name, **gone, "name": name} for name in silences.CAUSED),
            {"alertname": "EngineErrors", **gone, "name": "another alert of it"},
            {"alertname": "EngineDown", "host": host, "server": "engine-toy-1", "name": "another engine"},
            {"alertname": "EngineDown", "host": "b", "server": "engine-toy-0", "name": "its namesake"},
        ) == {
            **dict.fromkeys(silences.CAUSED, "suppressed"),
            "another alert of it": "active",
            "another engine": "active",
            "its namesake": "active",
        }
    (silence,) = api("GET", "silences")
    ends = datetime.datetime.fromisoformat(silence["endsAt"]) - datetime.datetime.now(datetime.UTC)
    assert 0 < ends.total_seconds() <= silences.LINGER_SECONDS


@pytest.mark.parametrize(
    ("severity", "told"), [("page", "pager"), ("ticket", "desk"), ("watchdog", "desk"), ("other", "none")]
)
def test_each_severity_goes_to_who_wants_it(running: Container, severity: str, told: str) -> None:
    done = running.exec_run(
        ["amtool", "config", "routes", "test", "--config.file=/etc/am/alertmanager.yml", f"severity={severity}"],
        demux=True,
    )
    assert cast("tuple[bytes, bytes]", done.output)[0].decode().split() == [told]
