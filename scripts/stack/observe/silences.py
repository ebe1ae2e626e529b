"""Silences for planned changes: of the alerts that one engine's absence causes, for that engine, and expiring.

Alertmanager that does not answer is no reason to stop a change: it is said, and the alerts come.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

from stack.console import say

# What a stopped engine causes. Not ReplicaDrainedTooLong, which is about a change that was forgotten.
CAUSED = ("EngineDown", "ReplicaProbeFailing", "ReplicaOutOfPool")
TIMEOUT_SECONDS = 5
# As long as nobody is told that it is drained (ReplicaDrainedTooLong).
DRAIN_SECONDS = 4 * 3600
# The next probe of an engine that serves again comes within a minute, and Prometheus then evaluates its rules.
LINGER_SECONDS = 120
COMMENT = "vllm-onprem"


@contextmanager
def silenced(plan: Mapping[str, Any], engine: str, seconds: float, why: str) -> Iterator[None]:
    """Around a planned absence. It ends soon after the block, however that went, and by itself after `seconds`."""
    silence(plan, engine, seconds, why)
    try:
        yield
    finally:
        end(plan, engine)


def silence(plan: Mapping[str, Any], engine: str, seconds: float, why: str) -> None:
    """Silence what the absence of one engine of this plan causes, for so long."""
    now = datetime.datetime.now(datetime.UTC)
    body = {
        "matchers": [
            _matcher("alertname", "|".join(CAUSED), regex=True),
            _matcher("host", _host_of(plan, engine)),
            _matcher("server", engine),
        ],
        "startsAt": now.isoformat(),
        "endsAt": (now + datetime.timedelta(seconds=seconds)).isoformat(),
        "createdBy": "vllm-onprem",
        "comment": f"{COMMENT}: {why}",
    }
    _try("POST", plan, "silences", body)


def end(plan: Mapping[str, Any], engine: str) -> None:
    """End the silences of this engine that were made here, as soon as its alerts had their time to end."""
    wanted = [("host", _host_of(plan, engine)), ("server", engine)]
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=LINGER_SECONDS)
    for found in _try("GET", plan, "silences") or []:
        matchers = [(matcher["name"], matcher["value"]) for matcher in found["matchers"]]
        ours = found["comment"].startswith(f"{COMMENT}: ") and found["status"]["state"] != "expired"
        later = datetime.datetime.fromisoformat(found["endsAt"]) > ends
        if ours and later and all(pair in matchers for pair in wanted):
            kept = {key: found[key] for key in ("id", "matchers", "startsAt", "createdBy", "comment")}
            _try("POST", plan, "silences", {**kept, "endsAt": ends.isoformat()})


def _host_of(plan: Mapping[str, Any], engine: str) -> str:
    # alerts of an engine carry its own host, wherever in a fleet Alertmanager is
    servers = (plan.get("fleet") or {}).get("servers", {})
    return str(servers[engine]["host"] if engine in servers else plan["host"])


def _matcher(name: str, value: str, *, regex: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "isRegex": regex, "isEqual": True}


def _try(method: str, plan: Mapping[str, Any], path: str, body: Mapping[str, Any] | None = None) -> Any:
    port = next((entry["port"] for entry in plan["published"] if entry["service"] == "alertmanager"), None)
    if port is None:
        return None  # on another host of the fleet: a deploy asks for the silence there
    url = f"http://127.0.0.1:{port}/api/v2/{path}"
    try:
        with requests.Session() as session:
            session.trust_env = False  # loopback is never behind a proxy
            answer = session.request(method, url, json=body, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            return answer.json()
    except (requests.RequestException, ValueError) as error:
        say(f"warning: Alertmanager took no silence, so alerts about this change will come: {error}")
        return None
