"""SLO: how much of the error budget is left, how fast it is used up, and by what."""

from __future__ import annotations

from boards import names
from boards.assemble import Board, Row, Variable, scraped
from boards.gateway import OK
from boards.panels import AnyPanel, Levels, Words, graph, number
from boards.queries import HOST, Query, rate, select, shown

MODEL = f'{HOST}, model=~"$model"'
# the longer the window, the slower the burn that it shows; the alerts' own are 1h and 6h (page), 1d and 3d (ticket)
WINDOWS = ("5m", "1h", "6h", "3d")
BUDGET = Levels(0.5, 0.1, below=True)
LATENCY = (("TTFT", "model_ttft"), ("E2E", "model_e2e"))
# Edges of vLLM's own buckets: between two of them nobody can count. Prometheus 3 writes 1 as 1.0.
TTFT_EDGES = 'le=~"0.25|0.5|1|1.0|2.5|5|5.0|10|10.0"'
E2E_EDGES = 'le=~"1|1.0|2.5|5|5.0|10|10.0|30|30.0|60|60.0"'


def slo() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-slo",
        title="vLLM / SLO",
        description="Error budgets, and the requests that use them up.",
        variables=[*scraped("up"), Variable("model", "Model", 'vllm:num_requests_running{host=~"$host"}')],
        rows=[
            Row("Error budget", _budget()),
            Row("What the objectives count as bad", _burn()),
            Row("Availability of the gateway", _availability()),
            Row("Latency of the models", _latency()),
        ],
        since="now-24h",
    )


def _left(level: str) -> str:
    return names.SLO_BUDGET_LEFT.format(level=level)


def _bad(level: str, window: str) -> str:
    return names.SLO_BAD.format(level=level, window=window)


def _budget() -> list[AnyPanel]:
    latency = [
        number(
            Words(f"{short} budget left", f"Of 30 days' budget of requests slower than their model's {short} objective;"
                  " the model that has the least."),
            "percentunit", Query(f"min ({_left(level)})", "least"), levels=BUDGET, width=6,
        )
        for short, level in LATENCY
    ]  # fmt: skip
    return [
        number(
            Words("Availability budget left", "Of 30 days' budget of bad requests. Below zero the promise is broken: no"
                  " releases but repairs. `make slo` shows the same.", "GatewayErrorBudgetBurn"),
            "percentunit", Query(f"min ({_left('gateway')})", "left"), levels=BUDGET, width=6,
        ),
        *latency,
        number(
            Words("Good answers", "Share of the gateway's answers in the time shown that were not 5xx. Broken streams"
                  " are in the budget, not here."),
            "percentunit",
            Query(
                f"sum (increase({select(names.NGINX_REQUESTS, HOST, OK)}[$__range]))"
                f" / sum (increase({select(names.NGINX_REQUESTS, HOST)}[$__range]))", "good",
            ),
            levels=Levels(0.9999, 0.999, below=True), width=6, decimals=3,
        ),
    ]  # fmt: skip


def _burn() -> list[AnyPanel]:
    return [
        graph(
            Words("Bad requests", "Share of requests that were bad, over several windows. Only the short ones high: it"
                  " has just begun. Only the long ones: it is over, its budget is spent.", "GatewayErrorBudgetBurn"),
            "percentunit", [Query(f"max ({_bad('gateway', window)})", window) for window in WINDOWS],
        ),
        *(
            graph(
                Words(f"{short} too slow", f"Share of requests slower than their model's {short} objective, over an"
                      " hour and over three days."),
                "percentunit",
                [Query(f"max by (model) ({_bad(level, span)})", f"{{{{model}}}} {span}") for span in ("1h", "3d")],
            )
            for short, level in LATENCY
        ),
    ]  # fmt: skip


def _availability() -> list[AnyPanel]:
    requests = rate(names.NGINX_REQUESTS, HOST)
    return [
        graph(
            Words("Bad answers", "Share of answers with 5xx. The client or the pool that has them: Gateway dashboard."),
            "percentunit", [Query(f"1 - sum by (host) ({rate(names.NGINX_REQUESTS, HOST, OK)})"
                                  f" / sum by (host) ({requests})", "{{host}}")], levels=Levels(0.0001, 0.001),
        ),
        graph(
            Words("Answers by status", "What the bad ones are. 4xx count as good: the client's own fault."),
            "reqps", [Query(f"sum by ({names.STATUS}) ({requests})", shown(names.STATUS))], stacked=True,
        ),
        graph(
            Words("Streams that went wrong", "Requests a second that an engine ended with abort or error, after a 200"
                  " had been sent: no status code counts them."),
            "reqps", [Query(f"sum by (model, finished_reason) ({rate('vllm:request_success_total', MODEL, BROKEN)})",
                            "{{model}} {{finished_reason}}")],
        ),
    ]  # fmt: skip


BROKEN = 'finished_reason=~"abort|error"'


def _within(histogram: str, edges: str) -> str:
    within, whole = rate(f"{histogram}_bucket", MODEL, edges), rate(f"{histogram}_count", MODEL)
    return f"sum by (model, le) ({within}) / on (model) group_left () sum by (model) ({whole})"


def _latency() -> list[AnyPanel]:
    return [
        graph(
            Words(f"{short} within", f"Share of requests whose {long} was within each of these seconds; every one is"
                  " an edge of a bucket, as an SLO's threshold has to be."),
            "percentunit",
            [Query(_within(histogram, edges), "{{model}} {{le}} s")],
            width=12, maximum=1,
        )
        for short, long, histogram, edges in (
            ("TTFT", "time to first token", "vllm:time_to_first_token_seconds", TTFT_EDGES),
            ("E2E", "end-to-end time", "vllm:e2e_request_latency_seconds", E2E_EDGES),
        )
    ]  # fmt: skip
