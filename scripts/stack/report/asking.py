"""The report's sections, filled with what a Prometheus answers."""

from __future__ import annotations

from pathlib import Path

from stack.report.page import Shown
from stack.report.panels import sections, variables
from stack.report.source import Prometheus, Span


def ask(folder: Path, source: Prometheus, span: Span) -> list[Shown]:
    """Every section with its series. folder: grafana/dashboards. Raises StackError: Prometheus does not answer."""
    chosen: dict[str, dict[str, str]] = {}
    shown = []
    for section in sections(folder):
        panels = []
        for panel in section.panels:
            if panel.uid not in chosen:
                chosen[panel.uid] = source.chosen(variables(folder, panel.uid), span)
            panels.append((panel, source.series(panel, chosen[panel.uid], span)))
        # a box without GPUs has a section less, not three empty panels
        if section.title != "GPUs" or any(series for _, series in panels):
            shown.append(Shown(section.title, panels))
    return shown
