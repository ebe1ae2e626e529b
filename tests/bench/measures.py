"""What the benchmarks count with: percentiles, and how noisy the machine was."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Noise:
    """The machine between two moments: what others did to the measurement."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._before = _cpu_times()

    def so_far(self) -> dict[str, float | int]:
        """cores; load_before, load_after: 1-minute load averages, the first of which is others' work alone;
        steal_percent: CPU time that the hypervisor gave to other machines."""
        spent = [now - then for now, then in zip(_cpu_times(), self._before, strict=True)]
        return {
            "cores": os.cpu_count() or 1,
            "load_before": round(self._load, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "steal_percent": round(100 * spent[7] / max(1, sum(spent)), 2),
        }


def _cpu_times() -> list[int]:
    # user nice system idle iowait irq softirq steal, in ticks (proc(5))
    return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
