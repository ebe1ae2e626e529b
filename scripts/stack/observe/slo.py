"""Service level objectives: what counts, over which windows, and when a person is told that the budget burns.

Bad, of the gateway's requests: 5xx (timeouts are 504), requests that a client gave up without a byte of the answer
after `given_up_after`, streams that an engine broke (HAProxy counts them), streams that HAProxy cut, answers that vLLM
ended with an error. 4xx are not. Of one that HAProxy resent, both may be counted: the number is never too good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stack.observe import histograms
from stack.observe.rule import Alert, Group, Recording, Severity, duration, quoted

PERIOD_DAYS = 30
# Under so many bad ones or requests in the long window nobody is told: at 99.99 % a single lost request would page
# whenever the hour has fewer than 694. The gateway's own probe alone is 60 requests an hour and model.
MIN_FAILED, MIN_REQUESTS = 3, 20


@dataclass(frozen=True)
class Window:
    """Tell a person when `share` of the period's budget burns within `long` seconds, and still does in `short`."""

    long: int
    short: int
    share: float
    severity: Severity
    seconds: int

    @property
    def factor(self) -> float:
        """How many times faster than allowed that is."""
        return self.share * PERIOD_DAYS * 86400 / self.long


HOUR, DAY = 3600, 86400
# Google's SRE Workbook, chapter 5, table 5-8; the same as sloth's google-30d catalogue: 14.4, 6, 3 and 1 times.
WINDOWS = (
    Window(HOUR, 300, 0.02, "page", 120),
    Window(6 * HOUR, 1800, 0.05, "page", 900),
    Window(DAY, 2 * HOUR, 0.10, "ticket", HOUR),
    Window(3 * DAY, 6 * HOUR, 0.10, "ticket", 3 * HOUR),
)
WINDOW_SOURCE = (
    "burn rates and windows: Google's SRE Workbook, chapter 5 (2 % of 30 days' budget in 1 h, 5 % in 6 h page;"
    f" 10 % in 1 d or 3 d are a ticket); at least {MIN_FAILED} bad of {MIN_REQUESTS} requests"
)
SPANS = tuple(sorted({seconds for window in WINDOWS for seconds in (window.long, window.short)}))
# Windows of days need no new value each 15 s.
SLOW_SECONDS = 120

BAD = (
    "nginx_http_requests_failed_total",
    "haproxy_backend_server_aborts_total",
    'vllm:request_success_total{finished_reason="error"}',
)
# A stream that HAProxy cuts, as its replica hung and was marked down, it counts as a 5xx, though nginx had its 200 long
# before: what HAProxy counts beyond the failures that nginx saw. Both count at a request's end; as they are scraped at
# different times, the difference may be wrong for a moment by failures that are bad anyway. Below zero it says nothing.
CUT = (
    'clamp_min(sum(rate(haproxy_frontend_http_responses_total{proxy="in_pools",code="5xx"}[{span}]))'
    " - sum(rate(nginx_http_upstream_errors_total[{span}])), 0)"
)


@dataclass(frozen=True)
class Objective:
    """One objective. level: prefix of its recording rules. budget: share that may be bad. labels: of its series."""

    name: str
    level: str
    labels: Mapping[str, str]
    percent: float
    requests: str
    bad: str

    @property
    def budget(self) -> float:
        """Share of requests that may be bad, 0 to 1."""
        return round(1 - self.percent / 100, 9)

    @property
    def selector(self) -> str:
        """The labels, for a selector."""
        inside = ",".join(f"{key}={quoted(value)}" for key, value in sorted(self.labels.items()))
        return "{" + inside + "}" if inside else ""

    def of(self, what: str, span: int | str) -> str:
        """A recorded series: what (such as requests_bad:ratio_rate) over a span in seconds."""
        return f"{self.level}:{what}{span if isinstance(span, str) else duration(span)}"


def never_fires(percent: float) -> str | None:
    """What is wrong with an objective that its own fastest alert cannot measure; None when nothing is."""
    fastest = max(window.factor for window in WINDOWS)
    floor = 100 * (1 - 1 / fastest)
    if percent > floor:
        return None
    return f"{percent:g} % is too low: {fastest:g} times its budget is more than every request; more than {floor:.2f}"


def objectives(watch: Mapping[str, Any]) -> list[Objective]:
    """The objectives of a plan's `watch`."""
    slo = watch["slo"]
    found = [
        Objective(
            "gateway", "gateway", {}, slo["availability"], "sum(rate(nginx_http_requests_admitted_total[{span}]))",
            # an engine or a balancer that is gone counts nothing: that must not hide what nginx counts
            f"sum(rate({BAD[0]}[{{span}}]))"
            + "".join(f" + (sum(rate({name}[{{span}}])) or vector(0))" for name in BAD[1:])
            + f" + ({CUT} or vector(0))",
        )
    ]  # fmt: skip
    for entry in slo["latency"]:
        name, histogram = entry["model"], histograms.NAMES[entry["metric"]]
        model = f"model={quoted(name)}"
        count = f"sum(rate({histogram}_count{{{model}}}[{{span}}]))"
        edge = quoted(str(float(entry["seconds"])))
        fast = f"sum(rate({histogram}_bucket{{{model},le={edge}}}[{{span}}]))"
        found.append(
            Objective(
                f"{entry['metric']} of {name}", f"model_{entry['metric']}", {"model": name}, entry["objective"],
                count, f"{count} - {fast}",
            )
        )  # fmt: skip
    return found


def groups(watch: Mapping[str, Any]) -> list[Group]:
    """Recording rules of every objective: those of hours every 15 s, those of days every two minutes."""
    made = objectives(watch)
    quick = [span for span in SPANS if span <= HOUR]
    slow = [*(span for span in SPANS if span > HOUR), PERIOD_DAYS * DAY]
    return [
        Group("slo", [rule for objective in made for rule in _recordings(objective, quick)]),
        Group(
            "slo-days",
            [rule for objective in made for rule in (*_recordings(objective, slow), *_budget(objective))],
            SLOW_SECONDS,
        ),
        Group("slo-alerts", [alert for objective in made for alert in _alerts(objective)]),
    ]


def _recordings(objective: Objective, spans: Sequence[int]) -> Iterator[Recording]:
    labels = objective.labels
    for span in spans:
        requests, bad = (text.replace("{span}", duration(span)) for text in (objective.requests, objective.bad))
        yield Recording(objective.of("requests:rate", span), requests, labels)
        yield Recording(objective.of("requests_bad:rate", span), bad, labels)
        # summed counts divided once; without requests there is no ratio, rather than a good one
        ratio = f"{objective.of('requests_bad:rate', span)}{objective.selector}"
        ratio += f" / ({objective.of('requests:rate', span)}{objective.selector} > 0)"
        yield Recording(objective.of("requests_bad:ratio_rate", span), ratio, labels)


def _budget(objective: Objective) -> Iterator[Recording]:
    used = f"{objective.of('requests_bad:ratio_rate', PERIOD_DAYS * DAY)}{objective.selector}"
    yield Recording(
        objective.of("error_budget_remaining:ratio_rate", PERIOD_DAYS * DAY),
        f"1 - {used} / {objective.budget:g}",
        objective.labels,
    )


def _alerts(objective: Objective) -> Iterator[Alert]:
    name = {"gateway": "GatewayErrorBudgetBurn", "model_ttft": "TtftBudgetBurn", "model_e2e": "E2eBudgetBurn"}
    for window in WINDOWS:
        limit = f"{window.factor * objective.budget:.6g}"
        yield Alert(
            name[objective.level],
            burning(objective, window, limit),
            window.seconds,
            window.severity,
            f"{{{{ $value | humanizePercentage }}}} of the requests ({objective.name}) in {duration(window.long)} were"
            f" bad; {window.factor:.3g} times the error budget of {objective.percent:g} % is {float(limit):.4%}",
            "`make slo` shows what is left of the budget; `make smoke` what does not serve now.",
            WINDOW_SOURCE,
            labels={"window": duration(window.long), "objective": objective.level},
        )


def burning(objective: Objective, window: Window, limit: str) -> str:
    """True while the budget burns too fast in both windows, with enough requests to say so."""
    ratio = objective.of("requests_bad:ratio_rate", window.long) + objective.selector
    recent = objective.of("requests_bad:ratio_rate", window.short) + objective.selector
    failed = objective.of("requests_bad:rate", window.long) + objective.selector
    requests = objective.of("requests:rate", window.long) + objective.selector
    return (
        f"{ratio} > {limit} and {recent} > {limit}"
        # counts from rates are fractions: 3 requests are 2.99
        f" and {failed} * {window.long} >= {MIN_FAILED - 0.5} and {requests} * {window.long} >= {MIN_REQUESTS - 0.5}"
    )
