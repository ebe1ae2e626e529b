"""Fleet: what is on fire, on one page. Every number leads to the dashboard that explains it."""

from __future__ import annotations

from boards import names
from boards.assemble import Board, Row, Variable, scraped
from boards.gateway import ERRORS, errors
from boards.host import DISK, disk_free, memory_free
from boards.panels import GREEN, RED, AnyPanel, Levels, Words, graph, number, rows, states
from boards.queries import HOST, REPLICA, REPLICA_NAME, Query, increase, quantile, rate, select, shown
from boards.serving import KV_CACHE

MODEL = f'{HOST}, model=~"$model"'


def fleet() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-fleet",
        title="vLLM / Fleet",
        description="What is on fire: alerts, targets that are down, errors, slow models, full caches and disks.",
        variables=[*scraped("up"), Variable("model", "Model", 'vllm:num_requests_running{host=~"$host"}')],
        rows=[
            Row("Now", _now()),
            Row("What is on fire", _fire()),
            Row("What clients get", _clients()),
            Row("What the machines do", _machines()),
        ],
    )


def _now() -> list[AnyPanel]:
    up = select("up", HOST)
    return [
        number(
            Words("Alerts", "Alerts that Alertmanager holds now, silenced ones left out; Watchdog, which always fires,"
                  " is one of them."),
            "short", Query(f"sum ({select('alertmanager_alerts', HOST, ACTIVE)})", "alerts"), levels=Levels(2, 4),
            decimals=0, width=3,
        ),
        number(
            Words("Targets down", "What does not answer Prometheus. `make smoke` says why.", "TargetDown"),
            "short", Query(f"count ({up}) - sum ({up})", "down"), levels=Levels(1, 1), decimals=0, width=3,
        ),
        number(
            Words("Replicas up", "Share of replicas that get requests. Which ones do not: Gateway dashboard.",
                  "ReplicaOutOfPool"),
            "percentunit",
            Query(f"avg ({select('haproxy_server_status', HOST, UP)})", "up"),
            levels=Levels(1, 0.5, below=True), width=3,
        ),
        number(
            Words("Requests", "Answers of the gateway in a second."),
            "reqps", Query(f"sum ({rate(names.NGINX_REQUESTS, HOST)})", "requests"), width=3,
        ),
        number(
            Words("Answered with 5xx", "Share of the gateway's answers. By client and pool: Gateway dashboard.",
                  "GatewayErrorBudgetBurn"),
            "percentunit", Query(errors(), "5xx"), levels=ERRORS, decimals=2, width=3,
        ),
        number(
            Words("TTFT p99, worst model", "99 of 100 requests had their first token within this time.",
                  "TtftBudgetBurn"),
            "s", Query(f"max ({quantile(0.99, 'vllm:time_to_first_token_seconds', MODEL, 'model')})", "p99"), width=3,
        ),
        number(
            Words("Waiting in engines", "Requests that wait for a place in a batch.", "QueueGrowing"),
            "short", Query(f"sum ({select('vllm:num_requests_waiting', MODEL)})", "waiting"), levels=Levels(1, 20),
            width=3,
        ),
        number(
            Words("KV cache, fullest", "The fullest replica of all. Near 100 % it preempts requests.",
                  "KvCacheSaturated"),
            "percentunit", Query(f"max ({select('vllm:kv_cache_usage_perc', MODEL)})", "KV cache"), levels=KV_CACHE,
            width=3,
        ),
    ]  # fmt: skip


ACTIVE, UP = 'state="active"', 'state="UP"'


def _fire() -> list[AnyPanel]:
    return [
        rows(
            Words("Firing alerts", "Each with a runbook in its notification. Empty is good, as long as Watchdog"
                  " or the targets beside it say that anything is watched at all.", "README"),
            "none", Query('max by (alertname, severity, host, model, instance) (ALERTS{alertstate="firing"})', ""),
            {"severity": "Severity", "alertname": "Alert", "host": "Host", "model": "Model", "instance": "Instance"},
            width=12,
        ),
        states(
            Words("Targets", "Red is a target that Prometheus cannot scrape: a dead part vanishes from every other"
                  " panel, only here it stays.", "TargetDown"),
            [Query(f"max by (job, instance, host) ({select('up', HOST)})", "{{job}} {{instance}} {{host}}")],
            {"1": ("up", GREEN), "0": ("down", RED)},
        ),
    ]  # fmt: skip


def _clients() -> list[AnyPanel]:
    return [
        graph(
            Words("Requests by status", "What the gateway answered."),
            "reqps", [Query(f"sum by ({names.STATUS}) ({rate(names.NGINX_REQUESTS, HOST)})",
                            shown(names.STATUS))], stacked=True,
        ),
        graph(
            Words("TTFT p95 by model", "The model that clients complain about. Why: Serving dashboard."),
            "s", [Query(quantile(0.95, "vllm:time_to_first_token_seconds", MODEL, "model"), "{{model}}")],
        ),
        graph(
            Words("ITL p95 by model", "Seconds between two tokens: what a reader feels."),
            "s", [Query(quantile(0.95, "vllm:inter_token_latency_seconds", MODEL, "model"), "{{model}}")],
        ),
        graph(
            Words("Queue and batch", "Waiting above zero while running is at its ceiling: too few replicas. Waiting"
                  " while nothing runs: a wedged engine."),
            "short", [
                Query(f"sum by (model) ({select('vllm:num_requests_running', MODEL)})", "{{model}} running"),
                Query(f"sum by (model) ({select('vllm:num_requests_waiting', MODEL)})", "{{model}} waiting"),
            ],
        ),
        graph(
            Words("KV cache by replica", "Share in use.", "KvCacheSaturated"),
            "percentunit", [Query(f"max by ({REPLICA}) ({select('vllm:kv_cache_usage_perc', MODEL)})", REPLICA_NAME)],
            maximum=1, levels=KV_CACHE,
        ),
        graph(
            Words("Generated tokens by model", "Tokens a second."),
            "short", [Query(f"sum by (model) ({rate('vllm:generation_tokens_total', MODEL)})", "{{model}}")],
            stacked=True,
        ),
    ]  # fmt: skip


def _machines() -> list[AnyPanel]:
    return [
        graph(
            Words("Engines killed as wedged", "By their own health checks. Evidence is in evidence/<engine>/ of the"
                  " stack's state folder; send it to vLLM.", "EngineWedged"),
            "short", [Query(f"sum by (host, engine) ({increase(names.WATCHDOG_KILLS, HOST)})", "{{engine}} {{host}}")],
            width=6,
        ),
        graph(
            Words("Memory available", "Share of each host's memory.", "HostMemoryLow"),
            "percentunit", [Query(memory_free(), "{{host}}")], maximum=1, levels=Levels(0.2, 0.1, below=True), width=6,
        ),
        graph(
            Words("Disk free, fullest", "The fullest file system of each host.", "DiskFillingUp"),
            "percentunit", [Query(f"min by (host) ({disk_free()})", "{{host}}")], maximum=1, levels=DISK, width=6,
        ),
        graph(
            Words("GPU temperature, hottest", "The hottest GPU of each host. 85 degrees is an A100's most.", "GpuHot"),
            "celsius", [Query(f"max by (host) ({select('DCGM_FI_DEV_GPU_TEMP', HOST)})", "{{host}}")],
            levels=Levels(80, 85), width=6,
        ),
    ]  # fmt: skip
