"""Alerts about engines and the pools they serve in. `server` is the engine's name everywhere, as HAProxy says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stack.observe.rule import ENGINE, Alert, quoted

MINUTE, HOUR = 60, 3600
WHERE = "{{ $labels.server }} on {{ $labels.host }}"
KILLS = "vllm_onprem_engine_watchdog_kills_total"


def alerts(plan: Mapping[str, Any]) -> Iterator[Alert]:
    """Of these pools and engines."""
    of_fleet = bool(plan.get("fleet"))
    yield from (_of_engines_host(alert) if of_fleet else alert for alert in _ENGINES)
    for pool in plan["pools"]:
        limit, chosen = pool["max_queue"], f"{{proxy={quoted(pool['name'])}}}"
        yield Alert(
            "ModelWithoutReplicas",
            f"max by (host, proxy) (haproxy_backend_active_servers{chosen}) == 0",
            MINUTE,
            "page",
            "no replica of {{ $labels.proxy }} on {{ $labels.host }} gets requests ({{ $value }} are active)",
            "Every request for it is answered 503. `make status`, `make smoke`.",
            "none for 1 m: a lone replica that is restarted on the CPU is back within it; own choice",
            labels={"pool": pool["name"]},
        )
        yield Alert(
            "QueueGrowing",
            f"sum by (host, proxy) (haproxy_backend_current_queue{chosen}) > {limit // 2}",
            5 * MINUTE,
            "ticket",
            f"{{{{ $value }}}} requests wait for {{{{ $labels.proxy }}}} on {{{{ $labels.host }}}};"
            f" at {limit} more are refused",
            "Is a replica out of its pool, or is it load? `make status`; then more replicas, or lower limits for"
            " the client that sends them.",
            f"half of this pool's max_queue ({limit}) for 5 m: own choice; a full queue answers 429",
            labels={"pool": pool["name"]},
        )


def _of_engines_host(alert: Alert) -> Alert:
    # in a fleet HAProxy's series have the host of the gateway: HostDown would not silence them
    if not alert.expr.startswith(BY_GATEWAY):
        return alert
    inside = alert.expr.removeprefix(BY_GATEWAY).removesuffix(" == 1")
    here = 'group by (host, server) (up{job="vllm"})'
    return replace(alert, expr=f"max by (proxy, server) {inside} * on (server) group_left (host) {here} == 1")


BY_GATEWAY = "max by (host, proxy, server) "
_ENGINES = (
    Alert(
        "EngineDown",
        'up{job="vllm"} == 0',
        2 * MINUTE,
        "page",
        f"{WHERE} does not answer Prometheus (up is {{{{ $value }}}})",
        "`make smoke` says whether it loads, hangs or is gone; `make logs SERVICE={{ $labels.server }}`.",
        "8 scrapes in a row: a container that is started again takes 40 s on the CPU; a large model is down for longer",
        about=ENGINE,
    ),
    Alert(
        "ReplicaProbeFailing",
        'probe_success{job="probe_replica"} == 0',
        2 * MINUTE,
        "page",
        f"{WHERE} completes nothing, asked directly (probe_success is {{{{ $value }}}})",
        "Its health page may say 200 all the same. `make smoke`, then `docker inspect` of its health check.",
        "3 completions a minute apart, 30 s each: probes of 2 s caused 8 false restarts a day on a fleet, three of 10 s"
        " none (gonka-ai/gonka#1421)",
        about=ENGINE,
    ),
    Alert(
        "EngineWedged",
        f'label_replace(increase({KILLS}[1h]), "server", "$1", "engine", "(.*)") > 0',
        0,
        "ticket",
        f"{WHERE} was wedged and its health check killed it ({{{{ $value | humanize }}}} in the last hour)",
        "The evidence is in evidence/{{ $labels.server }}/ of the stack's state folder: `cat reason.json` first."
        " `make smoke` proves whether it serves again.",
        "once: the check proves an engine wedged before it kills it (compose/engine/check.py)",
        about=ENGINE,
    ),
    Alert(
        "EngineRestartLoop",
        'changes(process_start_time_seconds{job="vllm"}[30m]) > 2',
        0,
        "page",
        f"{WHERE} started {{{{ $value }}}} times in 30 minutes",
        "`make logs SERVICE={{ $labels.server }}`: out of memory, a lost GPU, or a request that kills it.",
        "3 starts in 30 m: own choice; one is a watchdog's kill, two may be a deploy and its repair",
        about=ENGINE,
    ),
    Alert(
        "KvCacheSaturated",
        "vllm:kv_cache_usage_perc > 0.9",
        10 * MINUTE,
        "ticket",
        f"the KV cache of {WHERE} is {{{{ $value | humanizePercentage }}}} full for 10 minutes",
        "New requests wait or push others out. Lower max_num_seqs or max_model_len, or add a replica.",
        "90 %: llm-d pull request 553",
        about=ENGINE,
    ),
    Alert(
        "EnginePreempts",
        "sum by (host, model, server) (rate(vllm:num_preemptions_total[10m]))"
        " / (sum by (host, model, server) (rate(vllm:request_success_total[10m])) > 0) > 0.05",
        10 * MINUTE,
        "ticket",
        f"{WHERE} preempts {{{{ $value | humanizePercentage }}}} as often as it finishes a request",
        "The KV cache is too small for what runs at once: lower max_num_seqs, or raise gpu_memory_utilization.",
        "5 % of finished requests: own choice; each preemption computes a prompt again",
        about=ENGINE,
    ),
    Alert(
        "EngineErrors",
        'sum by (host, model, server) (rate(vllm:request_success_total{finished_reason="error"}[10m]))'
        " / (sum by (host, model, server) (rate(vllm:request_success_total[10m])) > 0) > 0.05",
        5 * MINUTE,
        "page",
        f"{WHERE} ends {{{{ $value | humanizePercentage }}}} of its answers with an error",
        "`make logs SERVICE={{ $labels.server }}`; drain it if it is"
        " one replica: `make drain REPLICA={{ $labels.server }}`.",
        "5 %: llm-d pull request 553",
        about=ENGINE,
    ),
    Alert(
        "ReplicaOutOfPool",
        'max by (host, proxy, server) (haproxy_server_status{state="DOWN"}) == 1',
        MINUTE,
        "ticket",
        f"HAProxy gives {WHERE} no requests: its checks fail or its breaker is open (DOWN is {{{{ $value }}}})",
        "`make smoke` asks the replica itself; `make logs SERVICE=haproxy` names the check that failed.",
        "1 m: a breaker is closed again after 30 s (docs/gateway.md)",
        about=ENGINE,
    ),
    Alert(
        "ReplicaDrainedTooLong",
        'max by (host, proxy, server) (haproxy_server_status{state="MAINT"}) == 1',
        4 * HOUR,
        "ticket",
        f"{WHERE} is drained for more than 4 hours (MAINT is {{{{ $value }}}})",
        "Forgotten? `make undrain REPLICA={{ $labels.server }}`.",
        "4 h: own choice; longer than a repair, shorter than a shift",
    ),
)
