"""Alerts about the gateway as its clients see it, and about each client."""

from __future__ import annotations

from stack.observe.rule import Alert

MINUTE, DAY = 60, 86400

ALERTS = (
    Alert(
        "GatewayProbeFailing",
        'probe_success{job="probe_gateway"} == 0',
        2 * MINUTE,
        "page",
        "no completion of {{ $labels.model }} through the gateway of {{ $labels.host }}"
        " (probe_success is {{ $value }})",
        "`make smoke` asks each part in turn and names the one that fails.",
        "3 completions a minute apart, 30 s each, as for a replica",
    ),
    Alert(
        "ContextRefusals",
        'sum by (host, client) (increase(nginx_http_requests_total{status="400",pool!=""}[15m]))'
        " / (sum by (host, client) (increase(nginx_http_requests_total[15m])) >= 20) > 0.1",
        5 * MINUTE,
        "ticket",
        "{{ $value | humanizePercentage }} of the requests of client {{ $labels.client }}"
        " are refused by the engine (400)",
        "Nearly always prompts longer than max_model_len. `make logs SERVICE=nginx` shows which model.",
        "10 % of at least 20 requests in 15 m: own choice; 400 with a pool came from an engine, not from the gateway",
    ),
    Alert(
        "RateLimitExhausted",
        'sum by (host, client) (increase(nginx_http_requests_total{status="429"}[10m]))'
        " / (sum by (host, client) (increase(nginx_http_requests_total[10m])) >= 20) > 0.1",
        5 * MINUTE,
        "ticket",
        "{{ $value | humanizePercentage }} of the requests of client {{ $labels.client }} get 429",
        "Its limits (requests_per_second, concurrency), or a full queue: see QueueGrowing.",
        "10 % of at least 20 requests in 10 m: own choice",
    ),
    Alert(
        "CertificateExpiresSoon",
        "min by (host, instance) (probe_ssl_earliest_cert_expiry) - time() < 14 * 86400",
        10 * MINUTE,
        "ticket",
        "the gateway's certificate on {{ $labels.host }} ends in {{ $value | humanizeDuration }}",
        "Renew it, then `make tls-reload`; a self-signed one is renewed by `make up`.",
        "14 d: ACME clients renew 30 days before the end, so two weeks of failed renewals are behind it",
    ),
)
