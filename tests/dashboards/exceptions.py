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

SLOW = "the rules of days are evaluated every two minutes, and the test may be over before"
NO_OBJECTIVES = "the stack of the tests promises no latency"
# (uid, panel) -> (why it has no data in the test, whether that is so each time)
NO_DATA = {
    ("vllm-fleet", "Firing alerts"): ("nothing has to be on fire while the tests run", False),
    ("vllm-slo", "Availability budget left"): (SLOW, False),
    ("vllm-slo", "Bad requests"): (SLOW, False),
    ("vllm-slo", "TTFT budget left"): (NO_OBJECTIVES, True),
    ("vllm-slo", "E2E budget left"): (NO_OBJECTIVES, True),
    ("vllm-slo", "TTFT too slow"): (NO_OBJECTIVES, True),
    ("vllm-slo", "E2E too slow"): (NO_OBJECTIVES, True),
}
