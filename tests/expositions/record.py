#!/usr/bin/env python3
"""Record what each part of a running stack exposes, into this folder: one sample of each set of labels.

    PYTHONPATH=scripts:tests .venv/bin/python tests/expositions/record.py vllm-onprem-test

Values and label values are of that one run; the tests read names of metrics and of labels only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dashboards.expositions import LABEL, SAMPLE
from stack.docker_host import address, connect, containers, get_page

PROBE = "/probe?module=gateway_toy&target=https://nginx:8443/v1/completions"
# file -> (service, its network, port, page)
PARTS = {
    "haproxy-3.0.11": ("haproxy", "inner", 8405, "/metrics"),
    "nginx-1.31.3": ("nginx", "inner", 8406, "/metrics"),
    "node-exporter-1.9.0": ("node-exporter", "inner", 9100, "/metrics"),
    "prometheus-2.53.3": ("prometheus", "inner", 9090, "/metrics"),
    "alertmanager-0.28.1": ("alertmanager", "inner", 9093, "/metrics"),
    "blackbox-exporter-0.26.0": ("blackbox-exporter", "inner", 9115, "/metrics"),
    "blackbox-exporter-0.26.0-probe": ("blackbox-exporter", "inner", 9115, PROBE),
    "vllm-0.32.0-cpu": ("engine-toy-0", "engines", 8000, "/metrics"),
}


def shortened(page: str) -> str:
    """HELP, TYPE, and the first sample of each metric with each set of label names, and of each bucket."""
    seen, lines = set(), []
    for line in page.splitlines():
        if line.startswith("#"):
            lines.append(line)
        elif found := SAMPLE.match(line):
            kind = (found[1], tuple(LABEL.findall(found[2] or "")), *re.findall(r'\ble="[^"]*"', found[2] or ""))
            if kind not in seen:
                seen.add(kind)
                lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    running = containers(connect(), sys.argv[1])
    for name, (service, network, port, path) in PARTS.items():
        page = get_page(f"http://{address(running[service], network)}:{port}{path}", timeout=30)
        (Path(__file__).parent / f"{name}.metrics.txt").write_text(shortened(page))


if __name__ == "__main__":
    main()
