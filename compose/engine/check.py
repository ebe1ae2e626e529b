"""The engine's health check, which Docker runs inside the engine's container. It ends a wedged engine.

vLLM answers /health with 200 while its EngineCore hangs, so this asks for a completion of one token too, or for the
embedding of one word. An engine that works proves itself by its step counter and is asked for nothing; an idle one is
asked every few runs, as vLLM's workers spin for a second after each step.

Wedged is an engine that three times in a row, 10 s each, does not give it while its step counter stands still:
decoding, prefilling and working off a queue move the counter. Then the evidence is saved and every process killed;
Docker starts the container again (`restart: unless-stopped`). That needs no socket and no daemon.

Until its first completion after a start (load, compile) an engine is starting: it is never killed, only unhealthy
when Docker's start period is over. One that answers 4xx has no such path: only its /health counts.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import evidence

# 8 false restarts a day with probes of 2 s, none with three of 10 s (gonka-ai/gonka#1421).
STRIKES = 3
# Not served and nothing proven: /health silent (the API server hangs; HAProxy has it out of the pool already), every
# completion a 500 or torn, or no step counter to compare. With the limits below this is one to five minutes.
FAILURES = 20
STEPS = re.compile(rb"^vllm:iteration_tokens_total_count(?:\{.*\})? (\S+)$", re.MULTILINE)
KILLS = "vllm_onprem_engine_watchdog_kills_total"
REFUSED, NO_ANSWER, TORN = 0, -1, -2
# The smallest thing that a model of each task can be asked, and its name in messages.
SMALLEST = {
    "generate": ("/v1/completions", {"prompt": "1", "max_tokens": 1, "temperature": 0}),
    "embed": ("/v1/embeddings", {"input": "1"}),
}
ASKED = {"generate": "a completion of one token", "embed": "the embedding of one word"}


@dataclass(frozen=True)
class Engine:
    """The engine to check, and where its files are. Limits in seconds."""

    name: str
    served_model_name: str
    task: str = "generate"
    address: str = "127.0.0.1"
    port: int = 8000
    memory: Path = Path("/tmp/check.json")  # a tmpfs: empty after each start
    key_file: Path = Path("/run/secrets/engine.yaml")  # JSON; without it the engine asks for no key
    evidence: Path = Path("/evidence")
    textfile: Path = Path("/textfile")
    proc: Path = Path("/proc")
    answer_limit: float = 5.0
    completion_limit: float = 10.0
    proof: float = 4.0  # how long its last completion or step proves an engine
    evidence_limit: float = 5.0


@dataclass(frozen=True)
class Seen:
    """What one look leaves to the next. Unix times: since, the first look in a row that went wrong; proven, the last
    completion or step."""

    served: bool = False
    steps: float | None = None
    strikes: int = 0
    failures: int = 0
    since: float = 0.0
    proven: float = 0.0


def look(engine: Engine, before: Seen) -> tuple[Seen, str]:
    """One look at the engine: what to remember, and what is wrong with it (empty: it is healthy)."""
    health, _ = _ask(engine, "/health", engine.answer_limit)
    if health != 200:
        problem = f"/health: {_TOLD.get(health, health)}"
        # else it is dead, which ends by itself, or stopping, or not there yet
        return _failed(before, problem) if health == NO_ANSWER else (Seen(before.served), problem)
    began, steps = time.time(), _steps(engine)
    if (proof := _still_proven(engine, before, steps, began)) is not None:
        return proof, ""
    path, question = SMALLEST[engine.task]
    request = {"model": engine.served_model_name, **question}
    status, _ = _ask(engine, path, engine.completion_limit, json.dumps(request).encode())
    after = _steps(engine)
    if status == 200 or (400 <= status < 500 and status != 401):
        return _proven(after), ""
    problem = f"{ASKED[engine.task]}: {_TOLD.get(status, status)}"
    if not before.served or status not in (NO_ANSWER, TORN, 500):
        return Seen(before.served), problem
    if status != NO_ANSWER or steps is None or after is None:
        return _failed(before, problem)
    return _compare(before, steps, after, began, problem)


def wedged(seen: Seen) -> bool:
    """Whether the engine will not come back by itself."""
    return seen.served and (seen.strikes >= STRIKES or seen.failures >= FAILURES)


def end(engine: Engine, seen: Seen, problem: str, kill: Callable[[int, int], None] = os.kill) -> None:
    """Save the evidence, count, and kill everything in the container but its init and this check."""
    reason = {"engine": engine.name, "model": engine.served_model_name, "reason": problem, **asdict(seen)}
    _, metrics = _ask(engine, "/metrics", 1.0)
    # in a thread: reading from a stuck process, or waiting for a stuck driver, may never end
    saving = threading.Thread(target=evidence.save, args=(engine.evidence, engine.proc, reason, metrics), daemon=True)
    saving.start()
    saving.join(engine.evidence_limit)
    with contextlib.suppress(OSError):
        count_kills(engine, 1)
    # The API server came first and goes last: its end is the container's end, and this check's.
    for pid in sorted(set(evidence.processes(engine.proc)) - {1, os.getpid()}, reverse=True):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


def count_kills(engine: Engine, more: int) -> None:
    """Add to the counter that the node exporter reads. It begins at 0, as Prometheus sees no rise from nothing."""
    path = engine.textfile / f"{engine.name}.prom"
    found = re.search(r"^\w+\{.*\} (\d+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    if found and not more:
        return
    total = (int(found[1]) if found else 0) + more
    lines = [
        f"# HELP {KILLS} Times that the health check killed this engine because it was wedged.",
        f"# TYPE {KILLS} counter",
        KILLS + '{engine="' + engine.name + f'"}} {total}',
    ]
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n")
    partial.chmod(0o644)  # the node exporter is another user
    partial.replace(path)


def main(engine: Engine, kill: Callable[[int, int], None] = os.kill) -> int:
    """One run: 0 when the engine is healthy, else 1. Docker keeps what is printed (`docker inspect`)."""
    before = _remembered(engine)
    seen, problem = look(engine, before)
    while seen.strikes > before.strikes and not wedged(seen):  # requests wait: look again now, not in Docker's time
        before = seen
        seen, problem = look(engine, before)
    engine.memory.write_text(json.dumps(asdict(seen)))
    if wedged(seen):
        problem = f"wedged, killed: {problem}"
        end(engine, seen, problem, kill)
    elif seen.served:
        with contextlib.suppress(OSError):
            count_kills(engine, 0)
    print(problem or "healthy")
    return 1 if problem else 0


_TOLD = {
    REFUSED: "refused",
    NO_ANSWER: "no answer in time",
    TORN: "an answer without its end",
    401: "401, it does not know the key in its own file",
}


def _proven(steps: float | None) -> Seen:
    return Seen(True, steps, proven=time.time())


def _still_proven(engine: Engine, before: Seen, steps: float | None, now: float) -> Seen | None:
    """The proof of an engine that need not be asked: a step since the last look, or a young one before it."""
    if not before.served or before.strikes or before.failures or None in (steps, before.steps):
        return None
    if steps != before.steps:
        return _proven(steps)
    # a clock that was set back proves nothing
    return before if 0 <= now - before.proven < engine.proof else None


def _failed(before: Seen, problem: str) -> tuple[Seen, str]:
    return replace(before, failures=before.failures + 1, since=before.since or time.time()), problem


def _compare(before: Seen, steps: float, after: float, began: float, problem: str) -> tuple[Seen, str]:
    if after != steps:
        return _proven(after), ""  # busy: the completion waits for its turn
    strikes, since = (before.strikes + 1, before.since) if before.strikes and steps == before.steps else (1, began)
    return Seen(True, after, strikes, since=since), f"{problem} and no step of the engine, {strikes} in a row"


def _ask(engine: Engine, path: str, limit: float, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(engine.address, engine.port, timeout=limit)
    headers = {"Content-Type": "application/json", **_key(engine)} if body else {}
    with contextlib.closing(connection):
        try:
            connection.request("POST" if body else "GET", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            return NO_ANSWER, b""
        except http.client.IncompleteRead:
            return TORN, b""
        except (OSError, http.client.HTTPException):
            return REFUSED, b""


def _key(engine: Engine) -> dict[str, str]:
    try:
        key = json.loads(engine.key_file.read_text())["api-key"][0]
    except FileNotFoundError:
        return {}
    return {"Authorization": f"Bearer {key}"}


def _steps(engine: Engine) -> float | None:
    found = STEPS.findall(_ask(engine, "/metrics", engine.answer_limit)[1])
    return sum(map(float, found)) if found else None


def _remembered(engine: Engine) -> Seen:
    try:
        return Seen(**json.loads(engine.memory.read_text()))
    except (OSError, ValueError, TypeError):
        return Seen()


if __name__ == "__main__":
    told = os.environ
    # An engine that was started before there were tasks is checked by this file too. One with the host's network has an
    # address there, as another may be its neighbour.
    place = (told.get("ENGINE_ADDRESS", "127.0.0.1"), int(told.get("ENGINE_PORT", "8000")))
    sys.exit(main(Engine(told["ENGINE_NAME"], told["SERVED_MODEL_NAME"], told.get("TASK", "generate"), *place)))
