"""Alertmanager's configuration: who is told of what, from the receivers of the stack file.

Secrets are files that Alertmanager reads when it sends; this tree holds their paths in its container only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stack.observe.rule import ENGINE, dump

SECRETS = "/etc/alertmanager/secrets"
# Label of test alerts alone (alert_test.py): of which test they are.
TEST = "test"
# Receiver's key -> {our key of a secret file: Alertmanager's key}.
FILES = {
    "webhook": {"url_file": "url_file"},
    "email": {"password_file": "auth_password_file"},
    "slack": {"api_url_file": "api_url_file"},
    "pagerduty": {"routing_key_file": "routing_key_file"},
}


def secret_name(receiver: str, kind: str, key: str) -> str:
    """Name of a secret's copy, in the folder that Alertmanager mounts."""
    return f"{receiver}.{kind}.{key}"


def secret_files(watch: Mapping[str, Any]) -> dict[str, str]:
    """Name of the copy -> path that the stack file gives."""
    return {
        secret_name(receiver["name"], kind, key): receiver[kind][key]
        for receiver in watch["receivers"]
        for kind, keys in FILES.items()
        if receiver[kind]
        for key in keys
        if receiver[kind][key]
    }


def configuration(watch: Mapping[str, Any]) -> bytes:
    """alertmanager.yml."""
    return dump(
        {
            "route": {
                "receiver": "none",
                # one message for an alert on a host, whatever the number of its engines; each test alert has a message
                # of its own, or a second one would wait for the first one's group_interval
                "group_by": ["alertname", "host", TEST],
                "group_wait": "15s",
                "group_interval": "2m",
                "repeat_interval": "4h",
                "routes": [route for receiver in watch["receivers"] for route in _routes(receiver)],
            },
            "inhibit_rules": [
                {
                    # a label that both lack would count as equal: it has to be there
                    "source_matchers": ['alertname="HostDown"', 'host=~".+"'],
                    "target_matchers": [f'about="{ENGINE}"', 'host=~".+"'],
                    "equal": ["host"],
                }
            ],
            "receivers": [{"name": "none"}, *(_receiver(receiver) for receiver in watch["receivers"])],
        }
    )


def _routes(receiver: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    wanted = [severity for severity in receiver["severities"] if severity != "watchdog"]
    if wanted:
        matchers = [f'severity=~"{"|".join(wanted)}"']
        yield {"receiver": receiver["name"], "matchers": matchers, "continue": True}
    if "watchdog" in receiver["severities"]:
        yield {
            "receiver": receiver["name"],
            "matchers": ['severity="watchdog"'],
            "group_wait": "0s",
            "group_interval": "1m",
            "repeat_interval": "1m",
            "continue": True,
        }


def _receiver(receiver: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": receiver["name"]}
    for kind, keys in FILES.items():
        settings = receiver[kind]
        if settings:
            plain = {_key(kind, key): value for key, value in settings.items() if key not in keys and value is not None}
            files = {
                theirs: f"{SECRETS}/{secret_name(receiver['name'], kind, ours)}"
                for ours, theirs in keys.items()
                if settings[ours]
            }
            made[f"{kind}_configs"] = [{**plain, **files, "send_resolved": True}]
    return made


def _key(kind: str, key: str) -> str:
    return {"email.username": "auth_username", "email.sender": "from"}.get(f"{kind}.{key}", key)
