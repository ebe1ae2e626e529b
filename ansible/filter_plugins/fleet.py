"""Hosts of a fleet by the names that its plan has for them, and how a batch of its engines went; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any


def by_stack_host(hosts: Sequence[str], variables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The plan's name -> the inventory's, of these hosts of the inventory; variables: hostvars.

    The name is stack_host, or what the role stack takes by itself.
    """
    return {variables[host].get("stack_host") or _own_name(host): host for host in hosts}


def _own_name(host: str) -> str:
    return re.sub("[^a-z0-9-]", "-", host.split(".", maxsplit=1)[0].lower())


def batch_outcome(
    batch: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]], alive: Sequence[str]
) -> dict[str, Any]:
    """How a batch of engines goes, by what the tasks of the role fleet have registered so far.

    members: hostvars of the fleet's hosts; alive: those that answer. refused: host -> why it took none out of its
    pools. stay: engines that get requests again where they answer. changed: those that are as wanted and serve.
    said: what went wrong, a sentence for each.
    """
    names = {each["inventory_hostname"]: str(each["__fleet_at"]["host"]) for each in members}
    lost = {name for inventory, name in names.items() if inventory not in alive}
    refused, whys, broken, silent = {}, {}, {}, {}
    for host, told in zip(names.values(), members, strict=True):
        if why := _failure(told.get("__fleet_out")):
            refused[host] = why
        if told.get("__fleet_why"):
            whys[host] = str(told["__fleet_why"])
        if why := _failure(told.get("__fleet_back")):
            broken[host] = why
        elif said := (told.get("__fleet_back") or {}).get("stdout"):
            silent[host] = json.loads(said)["out"]
    outcome: dict[str, Any] = {
        "refused": refused,
        "stay": [each["engine"] for each in batch if _stays(each, refused, whys)],
        "changed": [],
        "said": [f"{host}: {why} No engine was touched." for host, why in refused.items()],
    }
    for step in batch:
        engine, host = step["engine"], step["host"]
        reasons = {front: told[engine] for front, told in silent.items() if engine in told} | broken
        if host in lost:
            outcome["said"].append(
                f"{host} does not answer any more: it comes to the end of its step by itself, and {engine} may stay out"
                " of the pools until the next deploy."
            )
        elif host in whys or (reasons and engine in outcome["stay"]):
            gets = f"It gets no requests from {', '.join(reasons)}." if reasons else "It gets requests as before."
            why = whys.get(host) or "; ".join(dict.fromkeys(reasons.values()))
            outcome["said"].append(f"{engine} on {host}: {why} {gets}")
        elif not refused and step["action"] != "stop":
            outcome["changed"].append(engine)
    return outcome


def _stays(step: Mapping[str, Any], refused: Mapping[str, str], whys: Mapping[str, str]) -> bool:
    if refused:
        return bool(step["action"] != "start")
    return step["action"] != "stop" or step["host"] in whys


def _failure(result: Mapping[str, Any] | None) -> str:
    """Why a registered command did not do it; nothing where it did, or was not wanted."""
    if not result or not (result.get("unreachable") or result.get("rc")):
        return ""
    return "does not answer any more." if result.get("unreachable") else str(result.get("stderr") or result.get("msg"))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"batch_outcome": batch_outcome, "by_stack_host": by_stack_host}
