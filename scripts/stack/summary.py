"""What a plan or a running stack is, for a person."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stack.api_keys import key_file
from stack.certificates import client_trust_file
from stack.console import table
from stack.lifecycle import gateway_address, gateway_url
from stack.secrets.grafana import password_file


def how_to_use(plan: Mapping[str, Any]) -> str:
    """The last lines of `make up`: address, key, a request to paste, and what to do next."""
    state = Path(plan["state_dir"])
    key = key_file(state, plan["gateway"]["api_keys"][0])
    ports = {entry["service"]: entry["port"] for entry in plan["published"]}
    models = ", ".join(name for pool in plan["pools"] for name in (pool["served_model_name"], *pool["adapters"]))
    lines = [
        f"The stack {plan['project']!r} is up and answered real completions.",
        f"  URL         {gateway_url(plan)}/v1   (models: {models})",
        f"  API key     {key}",
        f"  Prometheus  http://127.0.0.1:{ports['prometheus']}   Alertmanager  http://127.0.0.1:{ports['alertmanager']}",
        *_grafana(plan, state, ports),
        "  Try it:",
        _curl(plan, state, key),
    ]
    if any(engine["model_dir"].endswith("/toy-llama") for engine in plan["engines"]):
        lines.append("  The toy model's answers are noise (random weights). To serve a real model:")
        lines.append("  cp stack.example.yaml stack.yaml, set its source, then: make up")
    return "\n".join(lines)


def _grafana(plan: Mapping[str, Any], state: Path, ports: Mapping[str, int]) -> list[str]:
    if "grafana" in ports:
        return [f"  Grafana     http://127.0.0.1:{ports['grafana']}   (user admin, password in {password_file(state)})"]
    return [f"  {line}" for line in left_out(plan)]


def left_out(plan: Mapping[str, Any]) -> list[str]:
    """A line for each part that is wanted and cannot be had; plans of before 'left_out' have none."""
    pulled = "only pulled, and images.source builds"
    missing = {"grafana": f"{pulled}; `make report` draws the main panels without it", "fluent_bit": pulled}
    return [f"left out: {part} ({missing[part]})" for part in plan.get("left_out", ())]


def _curl(plan: Mapping[str, Any], state: Path, key: Path) -> str:
    name, port, address = plan["gateway"]["server_name"], plan["gateway"]["https_port"], gateway_address(plan)
    resolve = [] if (name, address) == ("localhost", "127.0.0.1") else ["--resolve", f"{name}:{port}:{address}"]
    pool = plan["pools"][0]
    path, question = "chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
    if pool["task"] == "embed":
        path, question = "embeddings", {"input": "Hello"}
    body = {"model": pool["served_model_name"], **question}
    words = ["curl", "--cacert", str(client_trust_file(state)), *resolve, "-H", "Content-Type: application/json"]
    words += ["-d", json.dumps(body), f"{gateway_url(plan)}/v1/{path}"]
    return f'{shlex.join(words)} -H "Authorization: Bearer $(cat {shlex.quote(str(key))})"'


def plan_table(plan: Mapping[str, Any]) -> str:
    """A plan as tables: replicas with their GPUs and flags, published ports, images."""
    engines = [
        [engine["name"], engine["served_model_name"], ", ".join(engine["gpus"]) or "CPU", engine["model_dir"]]
        for engine in plan["engines"]
    ]
    ports = [[entry["service"], f"{entry['address']}:{entry['port']}"] for entry in plan["published"]]
    images = [[role, image] for role, image in sorted(plan["images"].items())]
    fleet = plan.get("fleet")
    roles = f", {fleet['address']} of a fleet: {', '.join(fleet['roles'])}" if fleet else ""
    parts = [
        f"host {plan['host']}, stack {plan['project']}, device {plan['device']}{roles}",
        *([table(["replica", "model", "GPUs", "model folder"], engines)] if engines or not fleet else []),
        *([table(["published", "address"], ports)] if ports else []),
        *(_between_hosts(fleet) if fleet else []),
        table(["image of", "reference"], images),
    ]
    for pool in plan["pools"]:
        every = [*plan["engines"], *plan["cordoned"]]
        engine = next((engine for engine in every if engine["name"] in pool["engines"]), None)
        if engine is None:
            continue  # its engines are on other hosts of the fleet
        if engine["memory_mib"]:
            parts.append(f"memory of one {pool['served_model_name']}: at most {engine['memory_mib'] // 1024} GiB")
        parts.append(f"flags of {pool['served_model_name']}:\n  {' '.join(engine['argv'])}")
    for engine in plan["cordoned"]:
        parts.append(f"cordoned, not run: {engine['name']} on {', '.join(engine['gpus'])} (`make uncordon GPU=...`)")
    parts += left_out(plan)
    if plan["gpus_unused"]:
        parts.append(f"GPUs left free: {', '.join(plan['gpus_unused'])}")
    return "\n\n".join(parts)


def _between_hosts(fleet: Mapping[str, Any]) -> list[str]:
    openings = [
        [one["service"], f"{one['address']}:{one['port']}", ", ".join(one["clients"]) or "itself"]
        for one in fleet["openings"]
    ]
    servers = [[name, f"{one['address']}:{one['port']}", one["host"]] for name, one in fleet["servers"].items()]
    found = [table(["answers other hosts", "address", "which"], openings)] if openings else []
    return found + ([table(["engine of the fleet", "address", "host"], servers)] if servers else [])
