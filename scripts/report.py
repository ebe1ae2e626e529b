#!/usr/bin/env python3
"""Draw what Prometheus knows of a stack into one HTML file that needs nothing else: no Grafana, no network.

It shows the main panels of grafana/dashboards, for people without Grafana, for incidents, for a ticket.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack import console, inputs
from stack.adjust import applied_plan
from stack.errors import InputError
from stack.report.asking import ask
from stack.report.page import page
from stack.report.source import Prometheus, Span

DASHBOARDS = inputs.ROOT / "grafana/dashboards"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/report.py stack.yaml --since 6h --output incident.html; scripts/report.py stack.yaml"
        " --until 2026-11-25T04:00 --since 30m",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--since", default="1h", metavar="DURATION", help="how far back, such as 30m, 6h, 7d (1h)")
    parser.add_argument("--until", metavar="TIME", help="where it ends, in UTC, such as 2026-11-25T04:00 (now)")
    parser.add_argument("--output", type=Path, default=Path("report.html"), metavar="FILE", help="(report.html)")
    parser.add_argument("--prometheus", metavar="URL", help="another Prometheus than that of the stack on this box")
    parser.add_argument("--json", action="store_true", help="print what was drawn as JSON")
    arguments = parser.parse_args()
    place = inputs.place(arguments)
    span = _span(arguments.since, arguments.until)
    plan: Mapping[str, Any] = {} if arguments.prometheus else applied_plan(place.live)
    source = Prometheus((arguments.prometheus or _published(plan)).rstrip("/"))
    with console.step(f"asking {source.url}"):
        version = source.version()
        shown = ask(DASHBOARDS, source, span)
    facts = {
        "Source": f"Prometheus {version} at {source.url}",
        "Images": ", ".join(sorted(set(plan.get("images", {}).values()))) or "not known: --prometheus",
        "Panels": "of grafana/dashboards, every variable at All; times are UTC",
        "Drawn": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC by `make report`",
    }
    _write(arguments.output, page(f"{place.project}: report", span, shown, facts))
    empty = [panel.title for section in shown for panel, series in section.panels if not series]
    drawn = sum(len(section.panels) for section in shown) - len(empty)
    if arguments.json:
        console.print_json({"file": str(arguments.output), "panels": drawn, "empty": empty})
    else:
        print(f"{arguments.output}: {drawn} panels" + (f"; no data for {', '.join(empty)}" if empty else ""))
    return 0


def _span(since: str, until: str | None) -> Span:
    found = re.fullmatch(r"([1-9]\d{0,5})([smhdw])", since)
    if found is None:
        raise InputError("--since", f"{since!r} is no duration: a whole number and s, m, h, d or w, such as 6h")
    try:
        end = datetime.fromisoformat(until) if until else datetime.fromtimestamp(time.time(), UTC)
    except ValueError:
        raise InputError("--until", f"{until!r} is no time: such as 2026-11-25T04:00, in UTC") from None
    at = int((end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp())
    return Span(at - int(found[1]) * UNITS[found[2]], at)


def _published(plan: Mapping[str, Any]) -> str:
    port = next(entry["port"] for entry in plan["published"] if entry["service"] == "prometheus")
    return f"http://127.0.0.1:{port}"


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)


if __name__ == "__main__":
    console.run(main)
