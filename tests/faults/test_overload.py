"""More than the stack can do: a bounded queue, refusals at once, and no client at the cost of the others."""

from __future__ import annotations

import json
import random
import re
import resource
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from faults.running import processes
from integration.conftest import STACK_FILE, URL, Stack, run_script
from integration.load import Answer, Load

QUEUE_SECONDS = 2
IDLE, SLOW = 2000, 500
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def narrow(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with room for 2 x 4 requests at once, and 8 that wait for two seconds."""
    model = yaml.safe_load(STACK_FILE.read_text())["models"][0]
    limits = {"max_num_seqs": 4, "max_queue": 8, "queue_timeout": QUEUE_SECONDS}
    changed = stack.changed(tmp_path_factory.mktemp("narrow"), models=[model | limits])
    done = run_script("up", str(changed))
    assert done.code == 0, done.err
    yield stack
    assert run_script("up", str(STACK_FILE)).code == 0


def load_of(stack: Stack, key: str, workers: int, tokens: int, pause: float = 0.0) -> Load:
    return Load(URL, key, stack.ca_file, "toy", workers=workers, tokens=tokens, pause=pause)


def refusals(stack: Stack, since: float) -> list[dict[str, Any]]:
    """nginx's lines of each 429 and 503, the slowest last: from when the request was there as a whole.

    Not by nginx's own total: a client of 48 threads on a machine that is full sends the body seconds after the head.
    """
    log = stack.part("nginx").logs(since=since).decode()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return sorted((line for line in lines if line["status"] in (429, 503)), key=gateway_seconds)


def gateway_seconds(line: dict[str, Any]) -> float:
    return float(line["time_to_first_byte"] or 0)


def curl(stack: Stack, tokens: int) -> tuple[int, float, str]:
    """Status, seconds from the request's first byte to the answer's last, and the answer: by a process of its own."""
    body = json.dumps({"model": "toy", "prompt": f"curl {random.random()}", "max_tokens": tokens, "ignore_eos": True})
    done = subprocess.run(
        ["curl", "--silent", "--include", "--cacert", str(stack.ca_file), "--max-time", "60", "--json", body,
         "--header", "@-", "--write-out", "\n%{http_code} %{time_pretransfer} %{time_total}", f"{URL}/v1/completions"],
        input=f"Authorization: Bearer {stack.key}", capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, _, figures = done.stdout.rpartition("\n")
    status, sent, total = figures.split()
    return int(status), float(total) - float(sent), answer


def seconds(answers: list[Answer]) -> list[float]:
    return [answer.ended - answer.began for answer in answers]


def test_what_the_queue_cannot_hold_is_refused_in_time(narrow: Stack) -> None:
    began = time.time()
    with load_of(narrow, narrow.key, workers=48, tokens=128, pause=0.2) as load:
        load.wait_for(1000, seconds=240)
        with ThreadPoolExecutor(4) as pool:
            direct = list(pool.map(lambda _: curl(narrow, tokens=64), range(100)))
        load.wait_for(1000, seconds=240)
    refused = [answer for answer in load.answers if answer.error]
    told = sorted((took, answer) for status, took, answer in direct if status != 200)
    slowest = refusals(narrow, began)[-1]
    print(f"\n48 at once where 16 fit:\n{load.table()}\nslowest refusal in the gateway, n={len(refused)}: {slowest}")
    assert told, "curl met no limit"
    print(f"slowest refusal seen by curl, n={len(told)} of {len(direct)}: {told[-1][0]:.2f} s", end="")
    assert {answer.error for answer in refused} <= {"HTTP 429", "HTTP 503"}
    assert len(load.answers) - len(refused) > 20, "it serves what it can"
    limit = QUEUE_SECONDS + 1  # promised in docs/gateway.md
    assert gateway_seconds(slowest) < limit
    assert told[-1][0] < limit
    for _, answer in told:
        head, _, text = answer.partition("\n\n")  # text mode reads \r\n as \n
        assert int(re.findall(r"(?im)^retry-after: *(\d+)", head)[0]) > 0
        assert json.loads(text)["error"]["message"]


def test_one_client_cannot_starve_another(narrow: Stack) -> None:
    key = narrow.script("keys", "add", "greedy").out.strip()
    try:
        with load_of(narrow, narrow.key, workers=2, tokens=8, pause=0.1) as alone:
            alone.wait_for(100, seconds=60)
        with load_of(narrow, key, workers=48, tokens=128, pause=0.2) as greedy:
            greedy.wait_for(100, seconds=120)
            with load_of(narrow, narrow.key, workers=2, tokens=8, pause=0.1) as modest:
                modest.wait_for(100, seconds=200)
    finally:
        assert narrow.script("keys", "revoke", "greedy").code == 0
    print(f"\none with 48 at once:\n{greedy.table()}\nanother with 2:\n{modest.table()}")
    medians = [statistics.median(seconds(load.answers)) for load in (alone, modest)]
    print(
        f"the other's median: {medians[0]:.2f} s alone, {medians[1]:.2f} s beside it, n={len(modest.answers)}", end=""
    )
    assert len(greedy.failures("whole")) > 10, "there was no crowd"
    assert not modest.failures("whole") + modest.failures("stream"), modest.table()


def test_memory_with_thousands_of_idle_and_slow_connections(stack: Stack) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    body = json.dumps({"model": "toy", "prompt": "x" * 5000, "max_tokens": 1})
    # of two clients, as one may have 256 requests at once
    keys = [stack.script("keys", "add", name).out.strip() for name in ("slow-0", "slow-1")]
    before = {name: _memory(stack, name) for name in ("nginx", "haproxy")}
    try:
        with ExitStack() as opened, load_of(stack, stack.key, workers=4, tokens=8, pause=0.2) as load:
            connections = [opened.enter_context(_connect(context)) for _ in range(IDLE + SLOW)]
            for number, connection in enumerate(connections[:SLOW]):
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys[number % 2]}"
                connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body[:100]}".encode())
            deadline = time.monotonic() + 30
            sent = 100
            while time.monotonic() < deadline:
                for connection in connections[:SLOW]:
                    connection.sendall(body[sent : sent + 1].encode())
                sent += 1
                time.sleep(1)
            during = {name: _memory(stack, name) for name in before}
            load.wait_for(50, seconds=60)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for name in ("slow-0", "slow-1"):
            assert stack.script("keys", "revoke", name).code == 0
    for name, idle in before.items():
        print(f"\n{name}: {idle / MIB:.0f} MiB, with {IDLE} idle and {SLOW} slow {during[name] / MIB:.0f} MiB")
    print(load.table())
    assert max(during.values()) < 512 * MIB
    assert not load.failures("whole") + load.failures("stream"), load.table()


def _connect(context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("localhost", 18443), timeout=20)
    return context.wrap_socket(plain, server_hostname="localhost")


def _memory(stack: Stack, service: str) -> int:
    """Bytes that its processes hold. Docker's own statistics are empty where its cgroups are within others."""
    held = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid, _ in processes(stack.part(service))]
    return sum(map(int, held)) * resource.getpagesize()
