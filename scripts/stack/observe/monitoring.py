"""Alerts about the monitoring itself: what is not scraped, not written, not sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stack.observe.rule import Alert, quoted

MINUTE = 60


def alerts(plan: Mapping[str, Any]) -> Iterator[Alert]:
    """Of these targets."""
    yield from _ALWAYS
    counts: dict[tuple[str, str], int] = {}
    for target in plan["targets"]:
        where = (target["job"], target["labels"]["host"])
        counts[where] = counts.get(where, 0) + 1
    for (job, host), planned in sorted(counts.items()):
        chosen = f"up{{job={quoted(job)},host={quoted(host)}}}"
        yield Alert(
            "TargetMissing",
            f"count by (job, host) ({chosen}) < {planned} or absent({chosen}) * 0",
            5 * MINUTE,
            "ticket",
            f"Prometheus knows {{{{ $value }}}} of {planned} planned targets of {job} on {host}",
            f"prometheus/targets/{job}.json of the live tree (`make status` names it) says which;"
            " `make up` writes it anew.",
            "the plan's own number; 5 m: target files are read within 5 minutes at the latest",
            labels={"job": job, "host": host},
        )


_ALWAYS = (
    Alert(
        "TargetDown",
        'up{job!="vllm"} == 0',
        2 * MINUTE,
        "page",
        "{{ $labels.job }} at {{ $labels.instance }} does not answer Prometheus (up is {{ $value }})",
        "`make smoke` names the part that is broken and what to look at next.",
        "8 scrapes in a row; probes are scraped once a minute, their exporter answers or not",
    ),
    Alert(
        "ScrapeTooLarge",
        "increase(prometheus_target_scrapes_exceeded_sample_limit_total[15m]) > 0",
        0,
        "ticket",
        "Prometheus refused {{ $value | humanize }} scrapes that had too many series",
        "http://127.0.0.1:9090/targets shows whose; its limit is in prometheus.yml (sample_limit).",
        "once: limits are three times what a full host has (docs/observability.md)",
    ),
    Alert(
        "PrometheusCannotWrite",
        "increase(prometheus_tsdb_wal_writes_failed_total[15m])"
        " + increase(prometheus_tsdb_compactions_failed_total[15m])"
        " + increase(prometheus_tsdb_head_truncations_failed_total[15m]) > 0",
        0,
        "page",
        "Prometheus on {{ $labels.host }} failed {{ $value | humanize }} writes to its disk in 15 minutes",
        "`make logs SERVICE=prometheus`, then the disk: `docker system df -v`.",
        "once: prometheus-mixin waits 4 h for compactions, but a site with one Prometheus has no other to look at",
    ),
    Alert(
        "PrometheusNotIngesting",
        "sum by (host) (rate(prometheus_tsdb_head_samples_appended_total[5m])) <= 0",
        5 * MINUTE,
        "page",
        "Prometheus on {{ $labels.host }} stores {{ $value }} samples a second",
        "`make logs SERVICE=prometheus`; http://127.0.0.1:9090/targets.",
        "prometheus-mixin's PrometheusNotIngestingSamples",
    ),
    Alert(
        "PrometheusRuleFails",
        "sum by (host, rule_group) (increase(prometheus_rule_evaluation_failures_total[5m])) > 0",
        5 * MINUTE,
        "page",
        "{{ $value | humanize }} evaluations of rules in {{ $labels.rule_group }} failed in 5 minutes",
        "http://127.0.0.1:9090/rules shows the error beside the rule.",
        "prometheus-mixin's PrometheusRuleFailures",
    ),
    Alert(
        "ConfigReloadFailed",
        "prometheus_config_last_reload_successful == 0 or alertmanager_config_last_reload_successful == 0"
        " or blackbox_exporter_config_last_reload_successful == 0",
        5 * MINUTE,
        "ticket",
        "{{ $labels.job }} on {{ $labels.host }} runs an old configuration (last reload successful is {{ $value }})",
        "`make logs SERVICE={{ $labels.job }}` has the reason; `make up` puts it right.",
        "prometheus-mixin's PrometheusBadConfig, after one reload and its repair",
    ),
    Alert(
        "PrometheusCannotNotify",
        "increase(prometheus_notifications_errors_total[5m]) / (increase(prometheus_notifications_sent_total[5m]) > 0)"
        " > 0.01 or increase(prometheus_notifications_dropped_total[5m]) > 0",
        2 * MINUTE,
        "page",
        "Prometheus on {{ $labels.host }} does not reach Alertmanager ({{ $value | humanize }})",
        "`make logs SERVICE=alertmanager`: alerts show at http://127.0.0.1:9090/alerts only.",
        "1 % of notifications: prometheus-mixin's PrometheusErrorSendingAlertsToSomeAlertmanagers",
    ),
    Alert(
        "AlertmanagerCannotNotify",
        "sum by (host, integration) (increase(alertmanager_notifications_failed_total[10m])) > 0",
        MINUTE,
        "page",
        "Alertmanager on {{ $labels.host }} failed {{ $value | humanize }} notifications by {{ $labels.integration }}",
        "`make logs SERVICE=alertmanager` says what the receiver answered; `make alert-test` tries again.",
        "once in 10 m: alertmanager-mixin allows 1 %, which a small site's few notifications never are",
    ),
    Alert(
        "Watchdog",
        "vector(1)",
        0,
        "watchdog",
        "alerts reach you: always {{ $value }}, by design",
        "Nothing to do. The receiver of this one has to shout when it does NOT come.",
        "always: a dead man's switch",
    ),
)
