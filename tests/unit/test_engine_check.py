"""The health check of an engine against a stub of vLLM: who is healthy, who is wedged, and how one is ended."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stack.plan import vllm_args
from stack.plan.engines import HEALTH_CHECK
from stack.secrets.engine_key import EngineKeys
from stacks import ROOT

FOLDER = ROOT / "compose/engine"


def load(name: str) -> Any:
    """A module of the engine's folder, as a script there would import it; no byte code is left behind."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        sys.dont_write_bytecode = before


check, evidence = load("check"), load("evidence")


@dataclass
class Vllm:
    """The stub. health and completion: a status, or None to keep the client waiting.

    working: it makes steps all the time; busy: only while a completion waits.
    """

    port: int = 0
    health: int | None = 200
    completion: int | None = 200
    working: bool = False
    busy: bool = False
    steps: int = 7
    metrics: bool = True
    torn: bool = False
    completions: int = 0
    key: str = ""
    asked: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, authorization: str | None = None) -> tuple[int | None, str]:
        if path == "/health":
            return self.health, ""
        if path == "/metrics":
            self.steps += self.working
            lines = ['vllm:iteration_tokens_total_sum{engine="0"} 1e3']
            # two engine cores: the counters of both belong to the engine
            if self.metrics:
                lines += [f'vllm:iteration_tokens_total_count{{engine="{n}"}} {self.steps / 2:.1f}' for n in (0, 1)]
            return 200, "\n".join(lines) + "\n"
        self.completions, self.asked = self.completions + 1, path
        if self.key and authorization != f"Bearer {self.key}":
            return 401, "{}"
        self.steps += self.busy or self.completion == 200
        return self.completion, "{}"


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    seen = Vllm()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = seen.answer(self.path, self.headers.get("Authorization"))
            if status is None:
                seen.ended.wait(5)
                return
            self.send_response(status)
            if self.command == "POST":
                self.send_header("Content-Length", str(len(body) + seen.torn))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 - named by http.server

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield seen
        seen.ended.set()
        server.shutdown()
        thread.join()


@dataclass
class Checked:
    """An engine's health check with its files in a scratch folder, and whom it killed."""

    engine: Any
    vllm: Vllm
    killed: list[tuple[int, int]] = field(default_factory=list)

    def run(self) -> int:
        code: int = check.main(self.in_a_hurry, lambda pid, number: self.killed.append((pid, number)))
        return code

    def runs(self, count: int) -> list[int]:
        return [self.run() for _ in range(count)]

    @property
    def in_a_hurry(self) -> Any:
        """The engine with short limits for those answers that will not come.

        A question that the stub sees too late makes a difference only where its arrival is a step.
        """
        waits = 0.1 if self.vllm.busy else 0.03
        answer, completion = (waits if status is None else 10.0 for status in (self.vllm.health, self.vllm.completion))
        return check.replace(self.engine, answer_limit=answer, completion_limit=completion)

    @property
    def counted(self) -> str:
        return str((self.engine.textfile / "engine-toy-0.prom").read_text().splitlines()[-1])

    @property
    def folders(self) -> list[Path]:
        return sorted(self.engine.evidence.iterdir())


@pytest.fixture
def checked(tmp_path: Path, vllm: Vllm) -> Checked:
    for name in ("evidence", "textfile", "proc"):
        (tmp_path / name).mkdir()
    for pid in (1, 7, 90, 1234, os.getpid()):
        task = tmp_path / f"proc/{pid}/task/{pid}"
        task.mkdir(parents=True)
        (task / "comm").write_text("VLLM::EngineCor\n")
        (task / "status").write_text("Name:\tx\nState:\tT (stopped)\n")
        (tmp_path / f"proc/{pid}/cmdline").write_bytes(b"python3\0-m\0vllm\0")
    (tmp_path / "proc/self").mkdir()
    engine = check.Engine(
        "engine-toy-0", "toy", port=vllm.port, memory=tmp_path / "check.json", key_file=tmp_path / "engine.yaml",
        evidence=tmp_path / "evidence",
        textfile=tmp_path / "textfile", proc=tmp_path / "proc", evidence_limit=10.0, proof=0.0,
    )  # fmt: skip
    return Checked(engine, vllm)


def test_an_idle_engine_is_healthy_by_its_own_completion(checked: Checked, vllm: Vllm) -> None:
    assert checked.runs(4) == [0, 0, 0, 0]
    assert vllm.completions == 4
    assert checked.counted == 'vllm_onprem_engine_watchdog_kills_total{engine="engine-toy-0"} 0'


def test_an_idle_engine_is_not_asked_again_while_its_proof_is_young(checked: Checked, vllm: Vllm) -> None:
    checked.engine = check.replace(checked.engine, proof=60.0)
    assert checked.runs(4) == [0] * 4
    assert vllm.completions == 1
    for number, seconds in enumerate((-61, 60), 2):  # too old; the clock was set back
        seen = json.loads(checked.engine.memory.read_text())
        checked.engine.memory.write_text(json.dumps(seen | {"proven": seen["proven"] + seconds}))
        assert checked.run() == 0
        assert vllm.completions == number


def test_no_young_proof_saves_an_engine_with_something_wrong(checked: Checked, vllm: Vllm) -> None:
    """A silent /health; no counter to compare."""
    checked.engine = check.replace(checked.engine, proof=60.0)
    checked.run()
    vllm.health = None
    assert checked.run() == 1
    vllm.health, vllm.completion = 200, 503
    assert checked.run() == 1
    vllm.completion = 200
    assert checked.run() == 0
    vllm.metrics, vllm.completion = False, 503
    assert checked.run() == 1


def test_an_engine_that_works_is_asked_for_nothing(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.working, vllm.completion = True, None
    assert checked.runs(5) == [0] * 5
    assert vllm.completions == 1


def test_an_engine_too_busy_for_the_completion_is_healthy(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion, vllm.busy = None, True
    assert checked.runs(5) == [0] * 5
    assert vllm.completions > 1
    assert checked.killed == []


def asked(vllm: Vllm, completions: int) -> bool:
    """Whether so many completions were asked for; the stub may see the last after the check gave it up."""
    deadline = time.monotonic() + 10
    while vllm.completions < completions and time.monotonic() < deadline:
        time.sleep(0.005)
    return vllm.completions == completions


def strikes(checked: Checked, count: int) -> list[int]:
    """Looks that each may be a run's last: Docker ends a run that takes too long. How many strikes after each."""
    seen = check._remembered(checked.engine)
    after = []
    for _ in range(count):
        seen, _ = check.look(checked.in_a_hurry, seen)
        after.append(seen.strikes)
    checked.engine.memory.write_text(json.dumps(check.asdict(seen)))
    return after


def test_a_step_between_two_looks_starts_the_count_anew(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    for _ in range(4):
        assert strikes(checked, 2) == [1, 2]
        vllm.steps += 1
    assert checked.killed == []


def test_a_frozen_engine_is_killed_in_the_run_that_sees_it_three_times(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    assert checked.run() == 1
    assert asked(vllm, 1 + check.STRIKES)
    # neither init nor the check; the API server (the lowest) last
    assert checked.killed == [(1234, signal.SIGKILL), (90, signal.SIGKILL), (7, signal.SIGKILL)]
    assert checked.counted.endswith(" 1")


def test_it_is_counted_and_saved_before_the_first_kill(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    at_the_kill: list[tuple[bool, int]] = []
    check.main(
        checked.in_a_hurry, lambda *_: at_the_kill.append((checked.counted.endswith(" 1"), len(checked.folders)))
    )
    assert at_the_kill == [(True, 1)] * 3


def test_a_process_that_is_gone_or_not_ours_does_not_stop_the_rest(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    tried = []

    def refuse(pid: int, _: int) -> None:
        tried.append(pid)
        raise ProcessLookupError if pid > 100 else PermissionError

    assert check.main(checked.in_a_hurry, refuse) == 1
    assert tried == [1234, 90, 7]


@pytest.mark.parametrize(("health", "completion"), [(200, None), (200, 500), (503, 200), (None, 200)])
def test_a_starting_engine_is_unhealthy_and_never_killed(
    checked: Checked, vllm: Vllm, health: int | None, completion: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "FAILURES", 3)
    vllm.health, vllm.completion = health, completion
    assert checked.runs(5) == [1] * 5
    assert checked.killed == []
    vllm.health, vllm.completion = 200, 200
    assert checked.run() == 0


@pytest.mark.parametrize("health", [503, 404, 302])
def test_an_engine_whose_health_is_not_200_ends_by_itself(checked: Checked, vllm: Vllm, health: int) -> None:
    checked.run()
    vllm.health = health
    assert checked.runs(check.FAILURES + 1) == [1] * (check.FAILURES + 1)
    assert checked.killed == []


def test_an_engine_that_refuses_connections_is_stopping_not_wedged(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    gone = Checked(check.replace(checked.engine, port=1), vllm)
    assert gone.runs(check.FAILURES + 1) == [1] * (check.FAILURES + 1)
    assert gone.killed == []


@pytest.mark.parametrize(
    "broken", [{"health": None}, {"completion": 500}, {"torn": True}, {"completion": None, "metrics": False}],
    ids=["silent API server", "every completion a 500", "every answer torn", "no step counter"],
)  # fmt: skip
def test_without_a_proof_it_takes_much_longer(
    checked: Checked, vllm: Vllm, broken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "FAILURES", 6)
    checked.run()
    for name, value in broken.items():
        setattr(vllm, name, value)
    assert checked.runs(5) == [1] * 5
    assert checked.killed == []
    checked.run()
    assert [pid for pid, _ in checked.killed] == [1234, 90, 7]


@pytest.mark.parametrize("status", [404, 400, 429])
def test_an_engine_without_completions_is_healthy_by_its_health_alone(
    checked: Checked, vllm: Vllm, status: int
) -> None:
    vllm.completion = status
    assert checked.runs(5) == [0] * 5
    assert checked.killed == []


@pytest.mark.parametrize(("task", "path"), [("generate", "/v1/completions"), ("embed", "/v1/embeddings")])
def test_a_model_is_asked_for_what_it_does_and_wedged_when_it_no_longer_does(
    checked: Checked, vllm: Vllm, task: str, path: str
) -> None:
    checked.engine = check.replace(checked.engine, task=task)
    assert checked.run() == 0
    assert vllm.asked == path
    vllm.completion = None
    assert checked.run() == 1
    assert checked.killed


def test_the_engine_is_asked_with_the_first_key_of_its_own_file(checked: Checked, vllm: Vllm) -> None:
    checked.engine.key_file.write_bytes(EngineKeys("new", ("old", "new")).engine_copy())
    vllm.key = "old"
    assert checked.runs(3) == [0] * 3


@pytest.mark.parametrize("content", ["", '{"api-key": ["another"]}'])
def test_an_engine_that_does_not_know_its_key_is_unhealthy_and_not_killed(
    checked: Checked, vllm: Vllm, content: str
) -> None:
    checked.run()
    if content:
        checked.engine.key_file.write_text(content)
    vllm.key = "its own"
    assert checked.runs(check.FAILURES + 1) == [1] * (check.FAILURES + 1)
    assert checked.killed == []


def test_recovery_clears_the_record(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    assert strikes(checked, 2) == [1, 2]
    vllm.completion = 200
    assert checked.run() == 0
    vllm.completion = None
    assert strikes(checked, 2) == [1, 2]
    assert checked.killed == []


def test_strikes_of_a_run_that_docker_ended_count_in_the_next(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    strikes(checked, 2)
    assert checked.run() == 1
    assert len(checked.killed) == 3
    assert asked(vllm, 4)


def test_a_record_that_cannot_be_read_is_a_fresh_start(checked: Checked) -> None:
    checked.engine.memory.write_text('{"served": tr')
    assert checked.run() == 0
    checked.engine.memory.write_text('{"another": 1}')
    assert checked.run() == 0


def freeze(checked: Checked, vllm: Vllm) -> None:
    checked.run()
    vllm.completion = None
    checked.run()
    vllm.completion = 200


def test_evidence_tells_what_why_and_which_log(checked: Checked, vllm: Vllm) -> None:
    freeze(checked, vllm)
    (folder,) = checked.folders
    reason = json.loads((folder / "reason.json").read_text())
    assert (reason["engine"], reason["model"], reason["strikes"]) == ("engine-toy-0", "toy", 3)
    assert "3 in a row" in reason["reason"]
    words = shlex.split(reason["log"])
    assert words[:2] == ["docker", "logs"]
    assert words[words.index("--since") + 1] < reason["time"] < words[words.index("--until") + 1]
    assert b"vllm:iteration_tokens_total_count" in (folder / "metrics.txt").read_bytes()
    described = (folder / "process-7.txt").read_text()
    assert "cmdline: python3 -m vllm\n" in described
    assert "7 VLLM::EngineCor: T (stopped), (No such file or directory)\n" in described
    assert not (folder / f"process-{os.getpid()}.txt").exists()


def test_evidence_of_the_newest_five_is_kept(checked: Checked, vllm: Vllm) -> None:
    older = [f"2026-01-0{day}T00-00-00.000Z" for day in range(1, 7)]
    for name in older:
        (checked.engine.evidence / name).mkdir()
        (checked.engine.evidence / name / "reason.json").write_text("{}")
    newer: list[str] = []
    for number in (1, 2):
        freeze(checked, vllm)
        newer.append(checked.folders[-1].name)
        assert [folder.name for folder in checked.folders] == [*older[1 + number :], *newer]
        assert checked.counted.endswith(f" {number}")


def test_tools_that_are_there_are_asked_and_one_that_hangs_is_left_behind(
    checked: Checked, vllm: Vllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {"nvidia-smi": "echo GPU is lost; exec sleep 9", "py-spy": 'echo "$@"'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    hasty = Checked(check.replace(checked.engine, evidence_limit=1.0), vllm)
    began = time.monotonic()
    freeze(hasty, vllm)
    assert time.monotonic() - began < 8
    assert (hasty.folders[0] / "nvidia-smi.txt").read_text() == "GPU is lost\n"
    assert (hasty.folders[0] / "py-spy-7.txt").read_text() == "dump --nonblocking --pid 7\n"
    assert len(hasty.killed) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # Docker keeps what it prints
def test_what_cannot_be_written_does_not_stop_the_kill(checked: Checked, vllm: Vllm, tmp_path: Path) -> None:
    full = Checked(check.replace(checked.engine, evidence=tmp_path / "none", textfile=tmp_path / "none"), vllm)
    freeze(full, vllm)
    assert len(full.killed) == 3


def test_the_counter_is_one_other_users_may_read_and_is_replaced_in_one_step(checked: Checked) -> None:
    check.count_kills(checked.engine, 1)
    (path,) = checked.engine.textfile.iterdir()
    assert path.stat().st_mode & 0o777 == 0o644
    inode = path.stat().st_ino
    check.count_kills(checked.engine, 2)
    assert checked.counted.endswith(" 3")
    assert path.stat().st_ino != inode


def test_a_frozen_engine_is_out_of_the_pool_within_a_minute() -> None:
    limits, docker = check.Engine("x", "y"), HEALTH_CHECK
    start, haproxy = 0.5, 12.0  # of one run by Docker; of HAProxy's own check: inter, fastinter and its fall
    asked = limits.proof + 2 * (docker.interval + start)
    assert asked + check.STRIKES * limits.completion_limit + limits.evidence_limit + haproxy < 60
    look = 3 * limits.answer_limit + limits.completion_limit
    assert check.STRIKES * look + 1 + limits.evidence_limit < docker.timeout


def test_it_asks_the_port_that_the_plan_uses() -> None:
    assert check.Engine("x", "y").port == vllm_args.PORT


def test_the_counter_that_it_compares_is_one_of_vllms() -> None:
    assert check.STEPS.findall(b'vllm:iteration_tokens_total_count{engine="0",model_name="a{b}"} 1650.0\n') == [
        b"1650.0"
    ]


def test_it_runs_with_the_standard_library_alone(checked: Checked, tmp_path: Path) -> None:
    environment = {"ENGINE_NAME": "x", "SERVED_MODEL_NAME": "y", "PATH": os.environ["PATH"], "PYTHONPATH": ""}
    program = f"import runpy, sys; sys.path.insert(0, {str(FOLDER)!r}); runpy.run_path({str(FOLDER / 'check.py')!r})"
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", program], env=environment, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
