"""Metrics and recording rules of this project's own making, in one place: their names may still change."""

# nginx, counted by nginx/njs/gateway.js
NGINX_REQUESTS = "nginx_http_requests_total"
CLIENT, POOL, STATUS = "client", "pool", "status"
# the engines' health checks, through the node exporter's text files
WATCHDOG_KILLS = "vllm_onprem_engine_watchdog_kills_total"
# The SLO rules (prometheus/rules/slo.yaml): the share of bad requests in a window, the share that may be bad, and what
# is left of that share over the SLO's period. `slo` names the SLO, `model` its model where it has one.
SLI_ERROR = "slo:sli_error:ratio_rate{window}"
SLI_WINDOWS = ("5m", "1h", "6h", "3d")
ERROR_BUDGET = "slo:error_budget:ratio"
BUDGET_LEFT = "slo:period_error_budget_remaining:ratio"
