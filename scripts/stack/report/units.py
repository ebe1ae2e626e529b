"""Numbers as people read them, and round numbers for axes."""

from __future__ import annotations

import math
from datetime import UTC, datetime

TIME_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
SUFFIX = {"reqps": " req/s", "ops": "/s", "celsius": " °C", "watt": " W"}


def shown(value: float, unit: str) -> str:
    """A value with its unit, as Grafana's units are named."""
    if unit == "percentunit":
        return f"{_digits(value * 100)} %"
    if unit == "s":
        return _seconds(value)
    if unit in ("bytes", "Bps"):
        return _bytes(value) + ("/s" if unit == "Bps" else "")
    return _thousands(value) + SUFFIX.get(unit, "")


def _seconds(value: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(value) >= 2 * size:
            return f"{_digits(value / size)} {name}"
    if value == 0 or abs(value) >= 1:
        return f"{_digits(value)} s"
    return f"{_digits(value * 1000)} ms" if abs(value) >= 1e-3 else f"{_digits(value * 1e6)} µs"


def _bytes(value: float) -> str:
    power = min(5, int(math.log(abs(value), 1024))) if abs(value) >= 1 else 0
    return f"{_digits(value / 1024**power)} {['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][power]}"


def _thousands(value: float) -> str:
    for size, name in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return _digits(value / (1000 if name == " k" else size)) + name
    return _digits(value)


def _digits(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}".rstrip("0").rstrip(".") if places else f"{value:.0f}"


def ticks(highest: float, unit: str, count: int = 4) -> list[float]:
    """Round values from 0 to the first one that is not below highest."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / count
    base = 1024 ** math.floor(math.log(rough, 1024)) if unit in ("bytes", "Bps") and rough >= 1 else 1.0
    power = 10 ** math.floor(math.log10(rough / base))
    step = base * power * next(nice for nice in (1, 2, 2.5, 5, 10) if nice * power * base >= rough * 0.999)
    return [step * number for number in range(math.ceil(highest / step * 0.999) + 1)]


def times(start: float, end: float, count: int = 6) -> list[tuple[float, str]]:
    """(time, label) of round times in UTC between two times."""
    step = next((size for size in TIME_STEPS if (end - start) / size <= count), TIME_STEPS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 and end - start < 172800 else "%d %b"
    first = math.ceil(start / step) * step
    return [(at, datetime.fromtimestamp(at, UTC).strftime(form)) for at in range(first, int(end) + 1, step)]
