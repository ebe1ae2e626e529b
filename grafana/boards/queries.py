"""PromQL of the panels: selectors with the dashboard's variables, and the few shapes that recur."""

from __future__ import annotations

from dataclasses import dataclass

# The linter of Grafana's own dashboards asks every selector for these two.
TARGET = 'job=~"$job", instance=~"$instance"'
HOST = f'{TARGET}, host=~"$host"'
ENGINE = f'{HOST}, model=~"$model", replica=~"$replica"'
# HAProxy's own words: a proxy is a pool, a server is a replica
POOL = f'{HOST}, proxy=~"$pool"'
SERVER = f'{POOL}, server=~"$replica"'
# replicas are numbered on each host anew
REPLICA = "host, model, replica"
REPLICA_NAME = "{{model}}/{{replica}} {{host}}"

RATE = "$__rate_interval"
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Query:
    """One query. legend: Grafana's legend format, where {{label}} is a label of the result."""

    expr: str
    legend: str


def shown(*labels: str) -> str:
    """A legend of labels."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def select(metric: str, labels: str, *more: str) -> str:
    """metric{labels, more...}"""
    return f"{metric}{{{', '.join([labels, *more])}}}"


def rate(metric: str, labels: str, *more: str) -> str:
    """Per-second rate of a counter."""
    return f"rate({select(metric, labels, *more)}[{RATE}])"


def increase(metric: str, labels: str, *more: str) -> str:
    """Growth of a counter from one point of the graph to the next."""
    return f"increase({select(metric, labels, *more)}[{RATE}])"


def ratio(part: str, whole: str, by: str = "") -> str:
    """sum(part) / sum(whole), by labels."""
    group = f" by ({by})" if by else ""
    return f"sum{group} ({part}) / sum{group} ({whole})"


def buckets(histogram: str, labels: str, *more: str) -> Query:
    """What a heat map shows: observations by bucket."""
    return Query(f"sum by (le) ({increase(f'{histogram}_bucket', labels, *more)})", "{{le}}")


def quantile(share: float, histogram: str, labels: str, by: str, *more: str) -> str:
    """A quantile (0 to 1) of a histogram, interpolated within its bucket, by labels."""
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate(f'{histogram}_bucket', labels, *more)}))"


def quantiles(histogram: str, labels: str, by: str, *more: str) -> list[Query]:
    """The usual three quantiles."""
    return [
        Query(quantile(share, histogram, labels, by, *more), f"p{share * 100:g} {shown(by)}") for share in QUANTILES
    ]
