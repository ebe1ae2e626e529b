"""What is excepted from a check, and why. A test fails where an exception is not needed any more."""

from __future__ import annotations

# Series without the labels of a scraped target: a rule or Prometheus itself made them.
AGGREGATED = "an alert or a recording rule has the labels that its expression left, job and instance seldom among them"
# (uid, panel) -> why its selectors do not ask for $job and $instance
NOT_OF_A_TARGET = {
    ("vllm-fleet", "Firing alerts"): AGGREGATED,
    ("vllm-slo", "Budget left"): AGGREGATED,
    ("vllm-slo", "Burn rate, 1 h"): AGGREGATED,
    ("vllm-slo", "Burn rate over 5m"): AGGREGATED,
    ("vllm-slo", "Burn rate over 1h"): AGGREGATED,
    ("vllm-slo", "Burn rate over 6h"): AGGREGATED,
    ("vllm-slo", "Burn rate over 3d"): AGGREGATED,
}

# Recording rules that the dashboards ask for and no rule file has yet, and labels that nginx does not have yet.
# A test fails as soon as they are there: then the entry goes.
AWAITED_RULES = {
    "slo:sli_error:ratio_rate5m",
    "slo:sli_error:ratio_rate1h",
    "slo:sli_error:ratio_rate6h",
    "slo:sli_error:ratio_rate3d",
    "slo:error_budget:ratio",
    "slo:period_error_budget_remaining:ratio",
}
