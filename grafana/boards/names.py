"""Metrics and recording rules of this project's own making, in one place: their names may still change."""

# nginx, counted by nginx/njs/gateway.js
NGINX_REQUESTS = "nginx_http_requests_total"
CLIENT, POOL, STATUS = "client", "pool", "status"
# the engines' health checks, through the node exporter's text files
WATCHDOG_KILLS = "vllm_onprem_engine_watchdog_kills_total"
# Recorded by scripts/stack/observe/slo.py. level: gateway, model_ttft or model_e2e, the last two with the label model.
SLO_BAD = "{level}:requests_bad:ratio_rate{window}"
SLO_BUDGET_LEFT = "{level}:error_budget_remaining:ratio_rate30d"
