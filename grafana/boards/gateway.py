"""Gateway: nginx by client, pool and status; HAProxy by pool and replica; a canary's pool beside the stable one."""

from __future__ import annotations

from boards import names
from boards.assemble import Board, Row, Variable
from boards.panels import BLUE, GREEN, GREY, RED, YELLOW, AnyPanel, Levels, Words, graph, number, states
from boards.queries import HOST, POOL, SERVER, Query, rate, ratio, select, shown

SERIES = "haproxy_server_status"
# vLLM's own dashboards colour 5xx at these shares.
ERRORS = Levels(0.001, 0.01)
OK = f'{names.STATUS}!~"5.."'
# HAProxy's states of a server, in the order of how bad they are for clients
STATES = ("UP", "DRAIN", "NOLB", "MAINT", "DOWN")


def gateway() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-gateway",
        title="vLLM / Gateway",
        description="What clients get: requests by client, pool, replica and status; queues, resends, checks.",
        variables=[
            Variable("host", "Host", SERIES),
            Variable("job", "Job", 'up{host=~"$host", job=~"haproxy|nginx"}', any_value=True),
            Variable("instance", "Instance", 'up{host=~"$host", job=~"$job"}', any_value=True),
            Variable("pool", "Pool", SERIES + '{host=~"$host"}'),
            Variable("replica", "Replica", SERIES + '{host=~"$host", proxy=~"$pool"}'),
        ],
        rows=[
            Row("At a glance", _glance()),
            Row("Requests at nginx", _nginx()),
            Row("Pools: a canary is a pool of its own, to be read beside the stable one", _pools()),
            Row("Replicas", _replicas()),
        ],
    )


def errors(by: str = "") -> str:
    """Share of nginx's answers with 5xx. Counted by what is not 5xx: a gateway without errors has no such series."""
    group = f" by ({by})" if by else ""
    good, everything = rate(names.NGINX_REQUESTS, HOST, OK), rate(names.NGINX_REQUESTS, HOST)
    return f"1 - sum{group} ({good}) / sum{group} ({everything})"


def _glance() -> list[AnyPanel]:
    return [
        number(
            Words("Requests", "Requests that nginx answered in a second, whatever the answer."),
            "reqps", Query(f"sum ({rate(names.NGINX_REQUESTS, HOST)})", "requests"),
        ),
        number(
            Words("Answered with 5xx", "Share of all answers. Which pool and replica: below.",
                  "GatewayErrorBudgetBurn"),
            "percentunit", Query(errors(), "5xx"), levels=ERRORS, decimals=2,
        ),
        number(
            Words("Queued in HAProxy", "Requests that wait for a free slot of a replica. They are told 503 after"
                  " queue_timeout, and 429 beyond max_queue.", "QueueGrowing"),
            "short", Query(f"sum ({select('haproxy_backend_current_queue', POOL)})", "queued"), levels=Levels(1, 50),
        ),
        number(
            Words("Replicas up", "Share of replicas that HAProxy sends requests to. Drained ones are not.",
                  "ReplicaOutOfPool"),
            "percentunit",
            Query(f"avg ({select('haproxy_server_status', SERVER, _state('UP'))})", "up"),
            levels=Levels(1, 0.5, below=True),
        ),
        number(
            Words("Sent again", "Requests a second that another replica got, as the first refused them or failed"
                  " before a byte of its answer."),
            "reqps", Query(f"sum ({rate('haproxy_backend_redispatch_warnings_total', POOL)})", "resends"),
        ),
        number(
            Words("Clients that left", "Requests a second whose client went away before the answer's end: often their"
                  " own deadline. Rising with E2E latency: they give up."),
            "reqps", Query(f"sum ({rate('haproxy_backend_client_aborts_total', POOL)})", "gone"),
        ),
    ]  # fmt: skip


def _state(name: str) -> str:
    return f'state="{name}"'


def _nginx() -> list[AnyPanel]:
    requests = rate(names.NGINX_REQUESTS, HOST)
    return [
        graph(
            Words("Requests by status", "429: a limit of a client, or a full queue. 499: the client left. 502 and 503:"
                  " no replica was there. 504: none answered in time."),
            "reqps", [Query(f"sum by ({names.STATUS}) ({requests})", shown(names.STATUS))], stacked=True,
        ),
        graph(
            Words("5xx by host", "Share of answers that were the gateway's or the engines' fault."),
            "percentunit", [Query(errors("host"), "{{host}}")], levels=ERRORS,
        ),
        graph(
            Words("Requests by client", "Who asks, by the name of the API key. One client above the others: its limit"
                  " is too high, or it retries without a pause.", "RateLimitExhausted"),
            "reqps", [Query(f"sum by ({names.CLIENT}) ({requests})", shown(names.CLIENT))], stacked=True,
        ),
        graph(
            Words("5xx by client", "One client alone: its requests are the cause. All of them: the engines are."),
            "percentunit", [Query(errors(names.CLIENT), shown(names.CLIENT))], levels=ERRORS,
        ),
        graph(
            Words("Requests by pool", "As nginx sent them on, requests that were refused before that included."),
            "reqps", [Query(f"sum by ({names.POOL}) ({requests})", shown(names.POOL))], stacked=True,
        ),
        graph(
            Words("5xx by pool", "A canary above its stable pool: roll it back."),
            "percentunit", [Query(errors(names.POOL), shown(names.POOL))], levels=ERRORS,
        ),
    ]  # fmt: skip


def _pools() -> list[AnyPanel]:
    answers = "haproxy_backend_http_responses_total"
    failed = ratio(rate(answers, POOL, 'code="5xx"'), rate(answers, POOL), "proxy")
    return [
        graph(
            Words("Requests of each pool", "A canary gets what its weight says: look here before you believe its other"
                  " curves."),
            "reqps", [Query(f"sum by (proxy) ({rate('haproxy_backend_http_requests_total', POOL)})", "{{proxy}}")],
        ),
        graph(
            Words("5xx of each pool", "Share of the pool's answers. A canary above the stable pool over the same time:"
                  " roll it back."),
            "percentunit", [Query(failed, "{{proxy}}")], levels=ERRORS,
        ),
        graph(
            Words("First byte of each pool", "Mean seconds until the first byte of the answer, over the last 1024"
                  " requests: for streams that is TTFT and the queue, for others the whole answer."),
            "s", [Query(f"max by (proxy) ({select('haproxy_backend_response_time_average_seconds', POOL)})",
                        "{{proxy}}")],
        ),
        graph(
            Words("Queue of each pool", "Requests that wait for a slot. Growing for minutes: every replica works on"
                  " max_num_seqs; add replicas or lower the clients' limits.", "QueueGrowing"),
            "short", [Query(f"sum by (proxy) ({select('haproxy_backend_current_queue', POOL)})", "{{proxy}}")],
        ),
        graph(
            Words("Time in the queue of each pool", "Mean seconds in the queue, over the last 1024 requests."),
            "s", [Query(f"max by (proxy) ({select('haproxy_backend_queue_time_average_seconds', POOL)})",
                        "{{proxy}}")],
        ),
        graph(
            Words("Resends of each pool", "Second tries on another replica, and failed connections: either says"
                  " that a replica goes away under load."),
            "reqps", [
                Query(f"sum by (proxy) ({rate('haproxy_backend_redispatch_warnings_total', POOL)})", "{{proxy}} again"),
                Query(f"sum by (proxy) ({rate('haproxy_backend_connection_errors_total', POOL)})",
                      "{{proxy}} no connection"),
            ],
        ),
    ]  # fmt: skip


def _replicas() -> list[AnyPanel]:
    answers = "haproxy_server_http_responses_total"
    # the number of the state that the server is in: one series has 1, the others 0
    number_of_state = " + ".join(
        f"{index} * max by (proxy, server, instance) ({select('haproxy_server_status', SERVER, _state(name))})"
        for index, name in enumerate(STATES)
    )
    meaning = {
        str(index): (text, colour)
        for index, (text, colour) in enumerate(
            [("up", GREEN), ("drained", BLUE), ("no new requests", YELLOW), ("maintenance", GREY), ("down", RED)]
        )
    }
    return [
        states(
            Words("State of each replica", "As HAProxy and its standby see it. Down: its checks fail; look at its log"
                  " (`make logs SERVICE=engine-...`). Drained for hours: was it forgotten?", "ReplicaOutOfPool"),
            [Query(number_of_state, "{{server}} at {{instance}}")], meaning, width=24,
        ),
        graph(
            Words("Requests by replica", "Least connections gives slow replicas less."),
            "reqps", [Query(f"sum by (proxy, server) ({rate('haproxy_server_sessions_total', SERVER)})", "{{server}}")],
        ),
        graph(
            Words("At work by replica", "Requests now; the ceiling is max_num_seqs, beyond it they queue."),
            "short", [Query(f"sum by (proxy, server) ({select('haproxy_server_current_sessions', SERVER)})",
                            "{{server}}")],
        ),
        graph(
            Words("5xx by replica", "Share of its answers. One replica alone: drain it, then look at its GPU."),
            "percentunit",
            [Query(ratio(rate(answers, SERVER, 'code="5xx"'), rate(answers, SERVER), "proxy, server"), "{{server}}")],
            levels=ERRORS,
        ),
        graph(
            Words("First byte by replica", "Mean seconds until the first byte, over the last 1024 requests."),
            "s", [Query(f"max by (proxy, server) ({select('haproxy_server_response_time_average_seconds', SERVER)})",
                        "{{server}}")],
        ),
        graph(
            Words("Failed checks", "Checks a second that failed. A few before a replica goes down are its warning."),
            "ops", [Query(f"sum by (proxy, server) ({rate('haproxy_server_check_failures_total', SERVER)})",
                          "{{server}}")],
        ),
        graph(
            Words("Down for", "Seconds in a second that the replica was not in its pool: 1 is all the time."),
            "percentunit", [Query(f"max by (proxy, server) ({rate('haproxy_server_downtime_seconds_total', SERVER)})",
                                  "{{server}}")], maximum=1,
        ),
    ]  # fmt: skip
