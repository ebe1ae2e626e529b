"""A test alert through Alertmanager to every receiver, and what Alertmanager's own counters say became of it."""

from __future__ import annotations

import datetime
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import requests

from stack.console import step
from stack.docker_host import get_page
from stack.errors import StackError
from stack.observe.alertmanager import TEST

# Alertmanager waits 15 s for more alerts of a group, and tries a receiver again for minutes.
RECEIVED_SECONDS = 60.0
INTEGRATIONS = ("webhook", "email", "slack", "pagerduty")


@dataclass(frozen=True)
class Sent:
    """What Alertmanager counted for one way of sending. expected: receivers' uses of it."""

    integration: str
    expected: int
    notifications: float
    failed: float

    @property
    def arrived(self) -> bool:
        """Whether every receiver took it."""
        return not self.failed and self.notifications >= self.expected

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "arrived": self.arrived}


def send(plan: Mapping[str, Any], wait: float) -> list[Sent]:
    """Post an alert for each severity, resolved after a minute. Raises StackError when Alertmanager refuses it."""
    port = next(entry["port"] for entry in plan["published"] if entry["service"] == "alertmanager")
    expected = _expected(plan["watch"]["receivers"])
    before = _counters(port)
    severities = sorted({severity for receiver in plan["watch"]["receivers"] for severity in receiver["severities"]})
    now = datetime.datetime.now(datetime.UTC)
    # another instance each time: Alertmanager does not repeat what it has told
    alerts = [
        {
            "labels": {"alertname": "AlertTest", "host": plan["host"], "severity": severity, TEST: now.isoformat()},
            "annotations": {
                "summary": f"a test of {plan['project']} on {plan['host']} ({severity}): nothing is wrong",
                "description": "Sent by `make alert-test`. Nothing to do.",
            },
            "startsAt": now.isoformat(),
            "endsAt": (now + datetime.timedelta(minutes=1)).isoformat(),
        }
        for severity in severities
    ]
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=alerts, timeout=10)
    if answer.status_code != 200:
        raise StackError(f"Alertmanager refused the test alert: {answer.status_code} {answer.text[:200]}")
    with step("waiting until Alertmanager has told every receiver"):
        deadline = time.monotonic() + wait
        while True:
            sent = [_difference(name, count, before, _counters(port)) for name, count in sorted(expected.items())]
            if all(entry.arrived or entry.failed for entry in sent) or time.monotonic() > deadline:
                return sent
            time.sleep(1)


def _expected(receivers: list[Mapping[str, Any]]) -> Counter[str]:
    return Counter(name for receiver in receivers for name in INTEGRATIONS if receiver[name])


def _counters(port: int) -> Counter[tuple[str, str]]:
    pattern = r'^alertmanager_notification(s|_requests)_(?:failed_)?total\{integration="(\w+)".*\} (\S+)$'
    found: Counter[tuple[str, str]] = Counter()
    for line in get_page(f"http://127.0.0.1:{port}/metrics").splitlines():
        match = re.match(pattern, line)
        if match:
            kind = line.split("{", 1)[0].removeprefix("alertmanager_")
            found[kind, match[2]] += float(match[3])  # type: ignore[assignment]
    return found


def _difference(
    integration: str, expected: int, before: Mapping[tuple[str, str], float], now: Mapping[tuple[str, str], float]
) -> Sent:
    tried, failed = (
        now[kind, integration] - before[kind, integration]
        for kind in ("notification_requests_total", "notification_requests_failed_total")
    )
    return Sent(integration, expected, tried - failed, failed)
