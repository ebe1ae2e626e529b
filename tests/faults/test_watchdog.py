"""A wedged engine is killed by its own health check and serves again; a loaded one is left alone."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import time
from pathlib import Path
from typing import cast

import requests
import yaml

from faults.running import in_pool, until
from integration.conftest import ENGINES, STACK_FILE, URL, Stack
from integration.load import Load
from stack.docker_host import address, condition

FAULT_SECONDS = float(os.environ.get("FAULT_SECONDS", "300"))
KILLS = "vllm_onprem_engine_watchdog_kills_total"
FREEZE = """
import os, pathlib, signal
pids = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if b"EngineCore" in path.read_bytes()]
pids = [pid for pid in pids if pid != os.getpid()]
[os.kill(pid, signal.SIGSTOP) for pid in pids]
print(*pids)
"""  # noqa: E501 - one program


class Prefills(Load):
    """Prompts that fill the model's context, each another one, so that no cache helps; one token of answer."""

    def _body(self, stream: bool) -> dict[str, object]:
        prompt = [random.randrange(1, 250) for _ in range(2000)]
        return super()._body(stream) | {"prompt": prompt}


def counted(stack: Stack, engine: str) -> int:
    """Kills as the node exporter's file has them."""
    return int((stack.state / f"textfile/{engine}.prom").read_text().split()[-1])


def ask_prometheus(query: str) -> list[float]:
    port = yaml.safe_load(STACK_FILE.read_text())["observability"]["prometheus_port"]
    answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10)
    return [float(series["value"][1]) for series in answer.json()["data"]["result"]]


def folders(stack: Stack, engine: str) -> list[Path]:
    return sorted((stack.state / "evidence" / engine).iterdir())


def test_a_wedged_engine_is_killed_with_its_evidence_saved_and_serves_again(stack: Stack) -> None:
    victim, other = ENGINES
    restarts, kills = stack.part(victim).attrs["RestartCount"], counted(stack, victim)
    others = stack.part(other).attrs["RestartCount"]
    until(lambda: ask_prometheus(f'{KILLS}{{engine="{victim}"}}') == [kills], time.monotonic(), 60, "counted from 0")
    saved = folders(stack, victim)
    with Load(URL, stack.key, stack.ca_file, "toy", workers=4, tokens=32) as load:
        load.wait_for(20, 60)
        done = stack.part(victim).exec_run(["python3", "-c", FREEZE])
        began = time.monotonic()
        assert done.exit_code == 0
        frozen = cast(bytes, done.output).decode().split()
        assert frozen
        host = address(stack.part(victim), "engines")
        assert requests.get(f"http://{host}:8000/health", timeout=5).status_code == 200  # it lies
        until(lambda: stack.part(victim).attrs["RestartCount"] > restarts, began, 60, "killed")
        until(lambda: not in_pool(stack, victim), began, 60, "out of the pool")
        until(lambda: condition(stack.part(victim)) == "healthy", began, 300, "healthy")
        until(lambda: in_pool(stack, victim), began, 330, "in the pool")
    print("\n" + load.table())

    (folder,) = sorted({*folders(stack, victim)} - {*saved})
    reason = json.loads((folder / "reason.json").read_text())
    assert (reason["engine"], reason["strikes"]) == (victim, 3)
    assert "vllm:iteration_tokens_total_count" in (folder / "metrics.txt").read_text()
    assert "T (stopped)" in (folder / f"process-{frozen[0]}.txt").read_text()
    prompts = [path.name for path in folder.iterdir() if b"count 0." in path.read_bytes()]  # as Load sends them
    assert not prompts
    log = subprocess.run(shlex.split(reason["log"]), capture_output=True, text=True, timeout=60, check=True)
    assert "/v1/completions" in log.stdout + log.stderr

    assert counted(stack, victim) == kills + 1
    assert counted(stack, other) == 0
    assert stack.part(other).attrs["RestartCount"] == others
    answer = requests.post(
        f"http://{address(stack.part(victim), 'engines')}:8000/v1/completions",
        json={"model": "toy", "prompt": "1", "max_tokens": 8, "ignore_eos": True}, timeout=60,
        headers={"Authorization": f"Bearer {stack.engine_key}"},
    )  # fmt: skip
    assert answer.json()["usage"]["completion_tokens"] == 8
    began = time.monotonic()
    until(lambda: ask_prometheus(f'{KILLS}{{engine="{victim}"}}') == [kills + 1], began, 60, "in Prometheus")
    firing = f'ALERTS{{alertname="EngineWedged",alertstate="firing",engine="{victim}"}}'
    until(lambda: ask_prometheus(firing) == [1], began, 90, "the alert fires")


def test_an_engine_under_saturating_load_is_never_killed(stack: Stack) -> None:
    before = {name: (stack.part(name).attrs["State"]["StartedAt"], counted(stack, name)) for name in ENGINES}
    seen: dict[str, set[str]] = {name: set() for name in ENGINES}
    deadline = time.monotonic() + FAULT_SECONDS
    with (
        Load(URL, stack.key, stack.ca_file, "toy", workers=16, tokens=128) as load,
        Prefills(URL, stack.key, stack.ca_file, "toy", workers=16, tokens=1) as prefills,
    ):
        while time.monotonic() < deadline:
            for name in ENGINES:
                seen[name].add(condition(stack.part(name)))
            time.sleep(2)
    print(f"\n{FAULT_SECONDS:.0f} s\n{load.table()}\nprefills of 2000 tokens:\n{prefills.table()}")
    assert seen == {name: {"healthy"} for name in ENGINES}
    after = {name: (stack.part(name).attrs["State"]["StartedAt"], counted(stack, name)) for name in ENGINES}
    assert after == before
    assert min(len(load.answers), len(prefills.answers)) > FAULT_SECONDS / 10
