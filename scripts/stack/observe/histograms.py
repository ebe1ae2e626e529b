"""Edges of the histograms that objectives are measured on, in seconds. Between two edges a histogram knows nothing."""

from __future__ import annotations

# As vLLM 0.32.0 exposes them, the last one (+Inf) left out; a test compares them with the recorded exposition.
VLLM: dict[str, tuple[float, ...]] = {
    "ttft": (
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
        160.0, 640.0, 2560.0,
    ),
    "e2e": (
        0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
        1920.0, 7680.0,
    ),
}  # fmt: skip
NAMES = {"ttft": "vllm:time_to_first_token_seconds", "e2e": "vllm:e2e_request_latency_seconds"}

# The gateway's own, counted by njs: from the edge of what nginx adds (under 1 ms) to the longest answers.
GATEWAY = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)


def not_an_edge(metric: str, seconds: float) -> str | None:
    """What is wrong with a threshold; None when it is an edge of this metric's histogram."""
    edges = VLLM[metric]
    if seconds in edges:
        return None
    near = sorted(sorted(edges, key=lambda edge: abs(edge - seconds))[:2])
    return (
        f"{seconds:g} s is no edge of {NAMES[metric]}, so what is over it cannot be counted; nearest:"
        f" {' and '.join(f'{edge:g}' for edge in near)}"
    )
