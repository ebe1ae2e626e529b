"""What is excepted from a check, and why. A test fails where an exception is not needed any more."""

from __future__ import annotations

# Series without the labels of a scraped target: a rule or Prometheus itself made them.
AGGREGATED = "an alert or a recording rule has the labels that its expression left, job and instance seldom among them"
# (uid, panel) -> why its selectors do not ask for $job and $instance
NOT_OF_A_TARGET = {
    ("vllm-fleet", "Firing alerts"): AGGREGATED,
    ("vllm-slo", "Availability budget left"): AGGREGATED,
    ("vllm-slo", "TTFT budget left"): AGGREGATED,
    ("vllm-slo", "E2E budget left"): AGGREGATED,
    ("vllm-slo", "Bad requests"): AGGREGATED,
    ("vllm-slo", "TTFT too slow"): AGGREGATED,
    ("vllm-slo", "E2E too slow"): AGGREGATED,
}

# Recording rules that the dashboards ask for and no rule file has yet, and labels that nginx does not have yet.
# A test fails as soon as they are there: then the entry goes.
AWAITED_RULES = {
    "gateway:requests_bad:ratio_rate5m",
    "gateway:requests_bad:ratio_rate1h",
    "gateway:requests_bad:ratio_rate6h",
    "gateway:requests_bad:ratio_rate3d",
    "model_ttft:requests_bad:ratio_rate1h",
    "model_ttft:requests_bad:ratio_rate3d",
    "model_e2e:requests_bad:ratio_rate1h",
    "model_e2e:requests_bad:ratio_rate3d",
    "gateway:error_budget_remaining:ratio_rate30d",
    "model_ttft:error_budget_remaining:ratio_rate30d",
    "model_e2e:error_budget_remaining:ratio_rate30d",
}

CLIENT_AND_POOL = "nginx counts by status only: the labels client and pool are awaited"
RULES = "the SLO's recording rules are awaited"
# (uid, panel) -> (why it has no data in the test, whether that is so each time)
NO_DATA = {
    ("vllm-fleet", "Firing alerts"): ("nothing has to be on fire while the tests run", False),
    ("vllm-gateway", "Requests by client"): (CLIENT_AND_POOL, True),
    ("vllm-gateway", "5xx by client"): (CLIENT_AND_POOL, True),
    ("vllm-gateway", "Requests by pool"): (CLIENT_AND_POOL, True),
    ("vllm-gateway", "5xx by pool"): (CLIENT_AND_POOL, True),
    ("vllm-slo", "Availability budget left"): (RULES, True),
    ("vllm-slo", "TTFT budget left"): (RULES, True),
    ("vllm-slo", "E2E budget left"): (RULES, True),
    ("vllm-slo", "Bad requests"): (RULES, True),
    ("vllm-slo", "TTFT too slow"): (RULES, True),
    ("vllm-slo", "E2E too slow"): (RULES, True),
}
