"""Every query of every dashboard, executed: at the stack's own Prometheus under load, those about GPUs at one that
holds a constructed exposition of dcgm-exporter (tests/dashboards/dcgm-constructed.txt), as there is no GPU."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import requests

import browser
from dashboards.exceptions import NO_DATA
from dashboards.execution import chosen, problem
from dashboards.expositions import CONSTRUCTED, SAMPLE
from dashboards.reading import Target, load, targets
from integration.conftest import PROJECT, URL, Stack
from integration.load import Load
from stack.docker_host import containers
from stack.report.source import Prometheus

LIVE = "http://127.0.0.1:19090"
# two scrapes after the load began, and a minute's rate over them
PATIENCE_SECONDS = 50
DASHBOARDS = load()


def test_every_query_returns_data_from_the_stack_under_load(stack: Stack) -> None:
    prometheus = Prometheus(LIVE)
    waiting = [target for uid in DASHBOARDS for target in targets(DASHBOARDS[uid]) if not _about_gpus(target)]
    asked = len(waiting)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Load(URL, stack.key, stack.ca_file, "toy", workers=4, tokens=16, pause=0.1) as sent:
        while True:
            values = {uid: chosen(prometheus, uid) for uid in DASHBOARDS if uid != "vllm-gpu"}
            found = [(target, problem(prometheus, target, values[target.uid])) for target in waiting]
            problems = [(target, why) for target, why in found if why]
            waiting = [target for target, _ in problems]
            if {target.name for target in waiting} <= NO_DATA.keys() or time.monotonic() > deadline:
                break
            time.sleep(5)
    empty = {target.name for target in waiting}
    print(f"\n{asked} queries, {asked - len(waiting)} with data, {len(empty)} panels excepted; load: {sent.table()}")
    assert [f"{target.name}: {why}" for target, why in problems if target.name not in NO_DATA] == []
    not_needed = {name for name, (_, always) in NO_DATA.items() if always} - empty
    assert not_needed == set(), "these return data: take them out of the exceptions"


def test_every_query_about_gpus_returns_data_from_the_constructed_exposition(gpus: Prometheus) -> None:
    asked = [target for uid in DASHBOARDS for target in targets(DASHBOARDS[uid]) if _about_gpus(target)]
    values = chosen(gpus, "vllm-gpu")
    problems = [f"{target.name}: {why}" for target in asked if (why := problem(gpus, target, values))]
    print(f"\n{len(asked)} queries about GPUs, on {CONSTRUCTED.name}")
    assert len(asked) > 25
    assert problems == []


def _about_gpus(target: Target) -> bool:
    return "DCGM_" in target.expr


@pytest.fixture
def gpus(stack: Stack, tmp_path: Path) -> Iterator[Prometheus]:
    """A throw-away Prometheus that holds ten minutes of the constructed exposition."""
    tmp_path.chmod(0o755)
    (tmp_path / "prometheus.yml").write_text("{}\n")
    (tmp_path / "history.txt").write_text(_history(CONSTRUCTED.read_text(), time.time()))
    image = containers(stack.client, PROJECT)["prometheus"].attrs["Image"]
    as_me, mounted = f"{os.getuid()}:{os.getgid()}", {str(tmp_path): {"bind": "/given", "mode": "rw"}}
    stack.client.containers.run(
        image, ["tsdb", "create-blocks-from", "openmetrics", "/given/history.txt", "/given/data"],
        entrypoint=["promtool"], user=as_me, volumes=mounted, network_mode="none", remove=True,
    )  # fmt: skip
    server = stack.client.containers.run(
        image, ["--config.file=/given/prometheus.yml", "--storage.tsdb.path=/given/data"],
        entrypoint=["prometheus"], user=as_me, volumes=mounted, detach=True,
    )  # fmt: skip
    try:
        server.reload()
        prometheus = Prometheus(f"http://{server.attrs['NetworkSettings']['IPAddress']}:9090")
        _await(prometheus)
        yield prometheus
    finally:
        server.remove(force=True, v=True)


def _history(exposition: str, now: float) -> str:
    """The exposition every 15 s for ten minutes, as OpenMetrics with times: counters and gauges stay as they are."""
    samples = [line for line in exposition.splitlines() if SAMPLE.match(line) and not line.startswith("#")]
    place = 'job="dcgm",instance="dcgm-exporter:9400",host="constructed"'
    lines = [
        sample.replace("{", "{" + place + ",", 1) + f" {now - before:.0f}"
        for sample in samples
        for before in range(600, -1, -15)
    ]
    return "\n".join([*lines, "# EOF", ""])


def _await(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            requests.get(f"{prometheus.url}/-/ready", timeout=2).raise_for_status()
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


BLUE, CARD = {False: (0, 114, 178), True: (74, 168, 224)}, {False: (255, 255, 255), True: (22, 27, 34)}


def test_the_report_is_one_file_that_shows_the_stack(stack: Stack, report: Path) -> None:
    text = report.read_text()
    # nothing is fetched: no address but that of the source, and no element that could
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {LIVE}
    assert not re.search(r"<(script|img|link|iframe|object)\b|@import|url\(", text)
    assert "Prometheus 2.53" in text
    assert "vllm-onprem-test: report" in text
    pictures = [ElementTree.fromstring(found) for found in re.findall(r"<svg viewBox=\"0 0 560.*?</svg>", text)]
    assert len(pictures) > 20
    print(f"\n{len(pictures)} charts, {len(text) // 1024} KiB")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_is_readable_in_a_browser(report: Path, tmp_path: Path, dark: bool) -> None:
    chromium = browser.find()
    if chromium is None:
        pytest.skip("NOT LOOKED AT: no Chromium on this machine (apt-get install chromium); only its elements were")
    shot = browser.pixels(browser.picture(chromium, report, tmp_path, dark=dark)).astype(int)
    cards = (shot == CARD[dark]).all(axis=2)
    assert 0.4 < cards.mean() < 0.95  # the cards are there and something is on them
    curves = np.abs(shot - BLUE[dark]).sum(axis=2) < 24
    assert curves.sum() > 1000
    # curves in each third of the width: the grid has several columns, none of them empty
    assert all(third.sum() > 50 for third in np.array_split(curves, 3, axis=1))


@pytest.fixture(scope="module")
def report(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    # As long as the stack has been up: over a longer time its curves are as short as the machine was fast.
    (started,) = Prometheus(LIVE).get("query", {"query": 'process_start_time_seconds{job="prometheus"}'})["result"]
    age = int(time.time() - float(started["value"][1]))
    done = stack.script("report", "--since", f"{age}s", "--output", str(file), "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["empty"] == []
    assert told["panels"] > 25
    return file
