"""The running stack is watched: targets, probes, metrics as recorded, a test alert to receivers, no prompt kept."""

from __future__ import annotations

import datetime
import email
import http.server
import json
import os
import re
import secrets
import socketserver
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

import alert_cases
from integration.conftest import PROJECT, ROOT, STACK_FILE, URL, Stack, run_script
from stack.docker_host import containers
from stack.observe import silences as silences_of
from stack.observe.alert_test import RECEIVED_SECONDS
from watching import Watched

EXPOSITIONS = ROOT / "tests/expositions"
# Where each part's page is, and the recording that it is compared with.
PAGES = {
    "alertmanager-0.28.1": ("alertmanager", "inner", 9093),
    "blackbox-exporter-0.26.0": ("blackbox-exporter", "inner", 9115),
    "haproxy-3.0.11": ("haproxy", "inner", 8405),
    "nginx-njs": ("nginx", "inner", 8406),
    "node-exporter-1.9.0": ("node-exporter", "inner", 9100),
    "prometheus-2.53.3": ("prometheus", "inner", 9090),
    "vllm-0.32.0-cpu": ("engine-toy-0", "engines", 8000),
}
PROBE = "blackbox-exporter-0.26.0-probe"


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Watched:
    return Watched(PROJECT, stack.state, stack.client)


def complete(stack: Stack, prompt: str, key: str | None = None, tokens: int = 2) -> requests.Response:
    """One completion through the gateway."""
    body = {"model": "toy", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key or stack.key}"}
    return requests.post(f"{URL}/v1/completions", json=body, headers=headers, verify=str(stack.ca_file), timeout=60)


def wait(true: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not {what} after {seconds:.0f} s"
        time.sleep(1)


def test_every_planned_target_is_up_and_every_probe_gets_its_completion(stack: Stack, watched: Watched) -> None:
    planned = {(target.job, target.address) for target in watched.plan.targets}

    def up(metric: str) -> set[tuple[str, str]]:
        return {(item["metric"]["job"], item["metric"]["instance"]) for item in watched.ask(f"{metric} == 1")}

    probes = {target for target in planned if target[0].startswith("probe_")}
    assert len(probes) == 3
    wait(lambda: up("up") == planned and up("probe_success") == probes, 120, f"all up: {planned - up('up')}")
    wrong = watched.ask('probe_http_status_code{job=~"probe_.*"} != 200')
    assert not wrong


def test_a_probe_without_a_completion_fails(stack: Stack, watched: Watched) -> None:
    """A page of 200 is not enough: the exporter's own one is no completion."""
    page = _probe(watched, "gateway_toy", "http://localhost:9115/metrics")
    assert "probe_success 0" in page
    assert "probe_success 1" in _probe(watched, "replica_toy", "http://engine-toy-0:8000/v1/completions")


@pytest.mark.parametrize("name", [*PAGES, PROBE])
def test_metrics_of_rules_are_recorded_as_they_are_live(stack: Stack, watched: Watched, name: str) -> None:
    complete(stack, "x" * 4000)  # 400: longer than the model's context
    complete(stack, "x")
    if name == PROBE:
        text = _probe(watched, "gateway_toy", "https://nginx:8443/v1/completions?probe=toy")
    else:
        text = watched.exposition(*PAGES[name])
    path = EXPOSITIONS / f"{name}.metrics.txt"
    if os.environ.get("RECORD_EXPOSITIONS"):
        path.write_text(_without_the_machine(text))
    live, kept = _labels(text), _labels(path.read_text())
    used = {series.split("{", 1)[0] for case in alert_cases.cases() for series in case.series} & kept.keys()
    assert {metric: live.get(metric) for metric in used} == {metric: kept[metric] for metric in used}


def test_requests_are_counted_by_client_pool_and_status(stack: Stack, watched: Watched) -> None:
    def counted() -> dict[tuple[str, ...], float]:
        text = watched.exposition(*PAGES["nginx-njs"])
        found = re.findall(r'^nginx_http_requests_total\{client="(.*)",pool="(.*)",status="(\d+)"\} (\S+)$', text, re.M)
        times = re.findall(r'^nginx_http_(\w+_seconds)_count\{pool="(\w+)"\} (\S+)$', text, re.M)
        return {tuple(labels): float(value) for *labels, value in (*found, *times)}

    second = (stack.state / "secrets/api-keys/second").read_text().strip()
    before = counted()
    assert complete(stack, "x", second).status_code == 200
    assert complete(stack, "x", "sk-no-key-of-this-gateway").status_code == 401
    time.sleep(1.5)
    after = counted()
    assert after["second", "toy", "200"] == before.get(("second", "toy", "200"), 0) + 1
    assert after["", "", "401"] == before.get(("", "", "401"), 0) + 1
    assert after["request_seconds", "toy"] > before["request_seconds", "toy"]
    assert after["time_to_first_byte_seconds", "toy"] == after["request_seconds", "toy"]


def test_slo_shows_what_is_left(stack: Stack) -> None:
    done = stack.script("slo", "--json")
    assert done.code == 0, done.err
    (budget,) = json.loads(done.out)
    assert (budget["objective"], budget["percent"]) == ("gateway", 99.99)
    assert budget["requests"] > 0
    assert "gateway" in stack.script("slo").out


def test_a_drained_replica_is_silenced_for_what_that_causes_and_no_longer(stack: Stack, watched: Watched) -> None:
    def silences() -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{watched.ports['alertmanager']}/api/v2/silences"
        found: list[dict[str, Any]] = requests.get(url, timeout=10).json()
        return [entry for entry in found if entry["status"]["state"] == "active"]

    assert stack.script("drain", "engine-toy-0").code == 0
    try:
        (silence,) = silences()
        matchers = {matcher["name"]: matcher["value"] for matcher in silence["matchers"]}
        assert matchers == {
            "alertname": "|".join(silences_of.CAUSED),
            "host": watched.plan.host,
            "server": "engine-toy-0",
        }
        hours = _seconds_until(silence["endsAt"]) / 3600
        assert 3.9 < hours <= 4
    finally:
        assert stack.script("drain", "engine-toy-0", "--undo").code == 0
    assert all(_seconds_until(silence["endsAt"]) <= 120 for silence in silences())


def test_a_test_alert_reaches_a_webhook_and_a_mailbox_and_says_when_one_does_not(stack: Stack, tmp_path: Path) -> None:
    networks = containers(stack.client, PROJECT)["alertmanager"].attrs["NetworkSettings"]["Networks"]
    bridge = networks[f"{PROJECT}_edge"]["Gateway"]  # this machine, as Alertmanager sees it
    secret = tmp_path / "url"
    with webhook(bridge) as (url, posted), mailbox(bridge) as (smarthost, mails):
        secret.write_text(f"{url}\n")
        secret.chmod(0o600)
        receivers: list[dict[str, Any]] = [
            {"name": "hook", "webhook": {"url_file": str(secret)}},
            {"name": "mail", "email": {"to": "a@example.org", "sender": "b@example.org", "smarthost": smarthost,
                                       "require_tls": False}},
        ]  # fmt: skip
        ports = {"prometheus_port": 19090, "alertmanager_port": 19093}
        changed = stack.changed(tmp_path, observability={**ports, "receivers": receivers})
        before = stack.started()
        assert run_script("up", str(changed)).out.splitlines()[0] == "reloaded alertmanager"
        assert stack.started() == before
        for _ in range(2):  # the second does not wait for what is left of the first
            done = run_script("alert_test", str(changed), "--json")
            assert done.code == 0, done.out + done.err
        assert any(alert["labels"]["alertname"] == "AlertTest" for body in posted for alert in body["alerts"])
        assert any("AlertTest" in mail for mail in mails)
    failed = run_script("alert_test", str(changed), "--json", "--wait", str(RECEIVED_SECONDS))
    assert failed.code == 1, failed.out
    assert all(entry["failed"] and not entry["arrived"] for entry in json.loads(failed.out))
    assert run_script("up", str(STACK_FILE)).code == 0


def test_no_prompt_and_no_key_is_kept_anywhere(stack: Stack, watched: Watched, tmp_path: Path) -> None:
    marker = f"marker{secrets.token_hex(8)}"
    sent: list[tuple[str, dict[str, Any], int]] = [
        ("completions", {"prompt": marker}, 200),
        ("completions", {"prompt": marker, "stream": True}, 200),
        ("chat/completions", {"messages": [{"role": "user", "content": marker}]}, 200),
        ("completions", {"prompt": marker * 300}, 400),  # longer than the model's context: the engine refuses it
        ("completions", {"prompt": "x", "temperature": marker}, 400),  # and this, as of a wrong type
        ("completions", {"prompt": "x", "chat_template": marker}, 400),  # the gateway does
    ]
    for path, body, status in sent:
        answer = requests.post(
            f"{URL}/v1/{path}", json={"model": "toy", "max_tokens": 2, **body}, verify=str(stack.ca_file), timeout=60,
            headers={"Authorization": f"Bearer {stack.key}"},
        )  # fmt: skip
        assert answer.status_code == status, answer.text
    assert complete(stack, "x", f"sk-{marker}").status_code == 401
    time.sleep(20)  # what is scraped and written by the second is there
    found = [
        f"{where}: {word[:9]}"
        for where, content in _kept(stack, watched, tmp_path)
        for word in (marker, stack.key, stack.engine_key)
        if word.encode() in content
    ]
    assert not found
    logs = subprocess.run(
        [str(ROOT / ".venv/bin/python"), str(ROOT / "scripts/logs.py"), str(STACK_FILE), "--tail", "5"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert all(service in logs for service in ("nginx", "engine-toy-0", "prometheus"))


def _kept(stack: Stack, watched: Watched, folder: Path) -> Iterator[tuple[str, bytes]]:
    """(where, content) of all that stays of a request: logs, metrics, the state folder but its secrets, a diagnosis."""
    for service, part in containers(stack.client, PROJECT).items():
        yield f"log of {service}", part.logs()
        assert part.attrs["HostConfig"]["LogConfig"]["Config"]["max-size"], service
    for name, page in PAGES.items():
        yield f"metrics of {name}", watched.exposition(*page).encode()
    everything = f"http://127.0.0.1:{watched.ports['prometheus']}/federate"
    yield "Prometheus", requests.get(everything, {"match[]": '{__name__!=""}'}, timeout=30).content
    for path in stack.state.rglob("*"):
        if path.is_file() and not {"secrets", "probe"} & {*path.parts}:
            yield str(path), path.read_bytes()
    done = stack.script("diagnose", "--out", str(folder), "--json")
    assert done.code == 0, done.err
    with tarfile.open(json.loads(done.out)["archive"]) as archive:
        for member in archive.getmembers():
            yield f"diagnosis: {member.name}", content.read() if (content := archive.extractfile(member)) else b""


def _probe(watched: Watched, module: str, target: str) -> str:
    part = containers(watched.client, PROJECT)["blackbox-exporter"]
    host = part.attrs["NetworkSettings"]["Networks"][f"{PROJECT}_inner"]["IPAddress"]
    return requests.get(f"http://{host}:9115/probe", {"module": module, "target": target}, timeout=40).text


def _labels(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", text, re.MULTILINE):
        found.setdefault(name, set()).update(alert_cases.labels_in(labels))
    return found


def _without_the_machine(text: str) -> str:
    return "".join(line + "\n" for line in text.splitlines() if not re.search(r"node_(uname|os|dmi)_info\{", line))


def _seconds_until(time_text: str) -> float:
    return (datetime.datetime.fromisoformat(time_text) - datetime.datetime.now(datetime.UTC)).total_seconds()


@contextmanager
def webhook(host: str) -> Iterator[tuple[str, list[Any]]]:
    """A receiver on this address: (its URL, what was posted)."""
    posted: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}/alerts", posted
        server.shutdown()


@contextmanager
def mailbox(host: str) -> Iterator[tuple[str, list[str]]]:
    """An SMTP sink on this address: (host:port, the messages)."""
    mails: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            while line := self.rfile.readline():
                verb = line.strip().upper()[:4]
                self.wfile.write(
                    b"354 go on\r\n" if verb == b"DATA" else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
                )
                if verb == b"DATA":
                    body = b""
                    while (part := self.rfile.readline()) not in (b".\r\n", b""):
                        body += part
                    message = email.message_from_bytes(body)
                    parts = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
                    mails.append(str(message["Subject"]) + "".join(str(part) for part in parts))
                    self.wfile.write(b"250 kept\r\n")

    with socketserver.ThreadingTCPServer((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{host}:{server.server_address[1]}", mails
        server.shutdown()
