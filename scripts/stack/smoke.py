"""Does the applied stack serve? Every part, every replica, the gateway as a client sees it, and the metrics.

A green /health or /v1/models never counts: only completions do.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import docker
import requests

from stack.checks import Check, SkippedError, answers
from stack.docker_host import address, asked_at, condition, containers, get_page
from stack.drains import drained, replacing
from stack.gateway_client import GatewayClient, Refused
from stack.observe.jobs import JOBS
from stack.secrets import engine_key

DEADLINE_SECONDS = 60.0
# A probe that came before the gateway knew of its new model fails, and is asked again one interval later.
SCRAPE_WAIT_SECONDS = float(max(job.interval + job.timeout for job in JOBS.values()))
UP = ("running", "healthy")
PROMPT = "Say something short."


def host_checks(plan: Mapping[str, Any], client: docker.DockerClient) -> Iterator[Check]:
    """Parts, replicas asked directly, the balancer's view, Prometheus. For the host that runs the stack."""
    here = services(plan)
    for service in here:
        yield Check(f"part {service}", f"`make logs SERVICE={service}`", partial(_part, plan, client, service))
    for engine in filter(answers, plan["engines"]):
        yield Check(
            f"replica {engine['name']}",
            f"`make logs SERVICE={engine['name']}`: is it loading, out of memory, or hung?",
            partial(ask_replica, plan, client, engine),
        )
    if "haproxy" in here:
        yield Check(
            "balancer", "`make logs SERVICE=haproxy` names the check that failed",
            partial(_patiently, plan, client, partial(_balancer, plan, client)),
        )  # fmt: skip
    if "prometheus" not in here:
        return  # on another host of the fleet
    port = _port(plan, "prometheus")
    yield Check(
        "metrics", f"http://127.0.0.1:{port}/targets shows each target's last error",
        partial(_patiently, plan, client, partial(_targets, plan, port)),
    )  # fmt: skip
    yield Check("alert rules", f"http://127.0.0.1:{port}/rules; `make logs SERVICE=prometheus`", partial(_rules, port))
    if "grafana" in here:
        yield Check("dashboards", "`make logs SERVICE=grafana`", partial(_grafana, _port(plan, "grafana")))


def gateway_checks(gateway: GatewayClient, pools: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """What a client sees: answers for each model and adapter, and no answer without a key."""
    look = "`make logs SERVICE=nginx` (status, upstream_status), then SERVICE=haproxy (termination state)"
    for pool in pools:
        model = pool["served_model_name"]
        if pool.get("task") == "embed":
            yield Check(f"embedding {model}", look, partial(gateway.embedding, model, PROMPT))
            continue
        for name in (model, *pool.get("adapters", ())):
            yield Check(f"completion {name}", look, partial(gateway.completion, name, PROMPT))
        yield Check(f"chat {model}", look, partial(_chat, gateway, model))
        yield Check(f"stream {model}", look, partial(gateway.stream, model, PROMPT))
    keys = "nginx/keys.json of the live tree (`make status` names it) holds the SHA-256 of every key that may pass"
    for what, key in (("bad key", "sk-not-a-key-of-this-gateway"), ("no key", None)):
        yield Check(f"{what} refused", keys, partial(gateway.refuses, key, pools[0]["served_model_name"]))


def services(plan: Mapping[str, Any]) -> list[str]:
    """Every service of a plan on its host, as Compose names it."""
    if plan.get("fleet"):
        return [*plan["fleet"]["services"], *(engine["name"] for engine in plan["engines"])]
    parts = ["nginx", "haproxy", "haproxy-standby", "prometheus", "alertmanager", "node-exporter", "blackbox-exporter"]
    parts += [role.replace("_", "-") for role in ("grafana", "fluent_bit") if role in plan["images"]]
    parts += ["cadvisor", "dcgm-exporter"] if plan["device"] == "cuda" else []
    return [*parts, *(engine["name"] for engine in plan["engines"])]


def _port(plan: Mapping[str, Any], service: str) -> int:
    return int(next(entry["port"] for entry in plan["published"] if entry["service"] == service))


def _part(plan: Mapping[str, Any], client: docker.DockerClient, service: str) -> str:
    part = containers(client, plan["project"]).get(service)
    if part is None:
        raise LookupError("there is no such container: `make up`")
    now, restarts = condition(part), part.attrs["RestartCount"]
    if now not in UP:
        raise LookupError(f"{now}, restarted {restarts} times")
    return f"{now}, restarted {restarts} times" if restarts else now


def ask_replica(plan: Mapping[str, Any], client: docker.DockerClient, engine: Mapping[str, Any]) -> str:
    """One completion or embedding, asked directly. Raises LookupError, Refused or RequestException."""
    part = containers(client, plan["project"]).get(engine["name"])
    if not part or (where := asked_at(part)) is None:
        raise LookupError("the container has no address: it is not running")
    return ask_at(where, plan, engine)


def ask_at(where: str, plan: Mapping[str, Any], served: Mapping[str, Any]) -> str:
    """The same of the engine at an address and port. served: it, or its pool. Raises Refused or RequestException."""
    keys = engine_key.load(Path(plan["state_dir"]))
    direct = GatewayClient(f"http://{where}", key=keys.sends if keys else None, timeout=DEADLINE_SECONDS)
    ask = direct.embedding if served.get("task") == "embed" else direct.completion
    return ask(served["served_model_name"], PROMPT)


def behind(plan: Mapping[str, Any]) -> list[str]:
    """Names of the engines that the gateway of a plan has as servers: its host's own, or the whole fleet's."""
    if plan.get("fleet"):
        return [name for name in plan["fleet"]["servers"] if name not in plan["fleet"]["not_run"]]
    return [engine["name"] for engine in plan["engines"]]


def in_pools(project: str, service: str, client: docker.DockerClient) -> set[str]:
    """Servers that a HAProxy of this host sends requests to. Raises LookupError or RequestException."""
    running = containers(client, project)
    if service not in running or (where := address(running[service], "inner")) is None:
        raise LookupError(f"{service} is not running")
    lines = get_page(f"http://{where}:8405/metrics").splitlines()
    up = [line for line in lines if line.startswith("haproxy_server_status{") and 'state="UP"' in line]
    return {found[1] for line in up if line.endswith(" 1") and (found := re.search(r'server="([^"]+)"', line))}


def _balancer(plan: Mapping[str, Any], client: docker.DockerClient) -> str:
    state = Path(plan["state_dir"])
    out = drained(state) | replacing(state)
    wanted = [name for name in behind(plan) if name not in out]
    for service in ("haproxy", "haproxy-standby"):
        serving = in_pools(plan["project"], service, client)
        down = [name for name in wanted if name not in serving]
        if down:
            raise LookupError(f"not in their pools, says {service}: {', '.join(down)}")
    said = f", {len(out)} drained: {', '.join(sorted(out))}" if out else ""
    return f"{len(behind(plan))} replicas in {len(plan['pools'])} pool(s){said}"


def _targets(plan: Mapping[str, Any], port: int) -> str:
    answer = json.loads(get_page(f"http://127.0.0.1:{port}/api/v1/targets?state=active"))
    health = {(item["labels"]["job"], item["labels"]["instance"]): item for item in answer["data"]["activeTargets"]}
    wanted = [(target["job"], target["address"]) for target in plan["targets"]]
    bad = [f"{job} {where}: {health[job, where]['lastError'] or health[job, where]['health']}"
           if (job, where) in health else f"{job} {where}: not known to Prometheus"
           for job, where in wanted if health.get((job, where), {}).get("health") != "up"]  # fmt: skip
    if bad:
        raise LookupError("; ".join(bad))
    return f"{len(wanted)} targets up"


def _rules(port: int) -> str:
    groups = json.loads(get_page(f"http://127.0.0.1:{port}/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    bad = [rule["name"] for rule in rules if rule["health"] == "err"]
    if bad or not rules:
        raise LookupError(f"rules with errors: {', '.join(bad)}" if bad else "no alerting rule is loaded")
    return f"{len(rules)} rule(s) loaded"


def _grafana(port: int) -> str:
    """Its own word that it is up and has its database: what it draws needs somebody who logs in."""
    said = json.loads(get_page(f"http://127.0.0.1:{port}/api/health"))
    if not isinstance(said, dict) or said.get("database") != "ok":
        raise LookupError(f"Grafana says {json.dumps(said)[:120]}")
    return f"Grafana {said.get('version')}, its database is ok"


def _patiently(plan: Mapping[str, Any], client: docker.DockerClient, attempt: Callable[[], str]) -> str:
    """Try until it passes or a scrape and a check had their time; once only where a part is down anyway."""
    running = containers(client, plan["project"])
    whole = all(name in running and condition(running[name]) in UP for name in services(plan))
    deadline = time.monotonic() + (SCRAPE_WAIT_SECONDS if whole else 0)
    while True:
        try:
            return attempt()
        except (LookupError, requests.RequestException):
            if time.monotonic() >= deadline:
                raise
        time.sleep(1)


def _chat(gateway: GatewayClient, model: str) -> str:
    try:
        return gateway.chat(model, PROMPT)
    except Refused as refused:
        if refused.status == 400 and "chat template" in str(refused).lower():
            raise SkippedError("the model has no chat template") from None
        raise
