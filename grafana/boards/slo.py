"""SLO: how much of the error budget is left, how fast it burns, and what burns it."""

from __future__ import annotations

from boards import names
from boards.assemble import Board, Row, Variable, scraped
from boards.gateway import OK
from boards.panels import AnyPanel, Levels, Words, graph, number
from boards.queries import HOST, Query, rate, select, shown

MODEL = f'{HOST}, model=~"$model"'
SLO = "{{slo}} {{model}}"
# Burn rates that page and that make a ticket: sloth's 30-day windows, after Google's SRE workbook.
BURN = Levels(1, 14.4)
BUDGET = Levels(0.5, 0.1, below=True)
# Edges of vLLM's own buckets: between two of them nobody can count. Prometheus 3 writes 1 as 1.0.
TTFT_EDGES = 'le=~"0.25|0.5|1|1.0|2.5|5|5.0|10|10.0"'
E2E_EDGES = 'le=~"1|1.0|2.5|5|5.0|10|10.0|30|30.0|60|60.0"'


def slo() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-slo",
        title="vLLM / SLO",
        description="Error budgets, burn rates, and the requests that burn them.",
        variables=[*scraped("up"), Variable("model", "Model", 'vllm:num_requests_running{host=~"$host"}')],
        rows=[
            Row("Error budget", _budget()),
            Row("Burn rate: 1 uses the budget up exactly at the end of the period", _burn()),
            Row("Availability of the gateway", _availability()),
            Row("Latency of the models", _latency()),
        ],
        since="now-24h",
    )


def _burn_rate(window: str) -> str:
    return f"{names.SLI_ERROR.format(window=window)} / on (slo, model) group_left () {names.ERROR_BUDGET}"


def _budget() -> list[AnyPanel]:
    return [
        number(
            Words("Budget left", "Of the SLO's whole period, the SLO that has the least. Below zero the promise is"
                  " broken: no releases but repairs."),
            "percentunit", Query(f"min by (slo, model) ({names.BUDGET_LEFT})", SLO), levels=BUDGET, width=8,
        ),
        number(
            Words("Burn rate, 1 h", "Above 14.4 the budget of 30 days is gone in 2: somebody is paged."),
            "none", Query(f"max by (slo, model) ({_burn_rate('1h')})", SLO), levels=BURN, width=8, decimals=1,
        ),
        number(
            Words("Good answers", "Share of the gateway's answers in the time shown that were not 5xx. Broken streams"
                  " are in the budget, not here."),
            "percentunit",
            Query(
                f"sum (increase({select(names.NGINX_REQUESTS, HOST, OK)}[$__range]))"
                f" / sum (increase({select(names.NGINX_REQUESTS, HOST)}[$__range]))", "good",
            ),
            levels=Levels(0.9999, 0.999, below=True), width=8, decimals=3,
        ),
    ]  # fmt: skip


def _burn() -> list[AnyPanel]:
    return [
        graph(
            Words(f"Burn rate over {window}", look),
            "none", [Query(f"max by (slo, model) ({_burn_rate(window)})", SLO)], width=6, levels=BURN,
        )
        for window, look in zip(names.SLI_WINDOWS, (
            "What happens now; it rises first and falls first.",
            "With the 5 minutes before it, what pages somebody.",
            "A slow burn that an hour does not show.",
            "What uses the budget up without ever paging.",
        ), strict=True)
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
