"""A load that never retries, has a deadline, and counts a reset or a stream without its end as a failure."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import requests

DEADLINE_SECONDS = 60.0
# Seconds that all workers ask between two rests.
TURN_SECONDS = 1.0


@dataclass(frozen=True)
class Answer:
    """One request's end. began and ended: seconds of the monotonic clock; error is empty for a good answer."""

    kind: str  # stream or whole
    began: float
    ended: float
    error: str


class Load:
    """Workers that send one request after another, half of them streams, until they are stopped.

    tokens: of each answer. pause: seconds between two requests of a worker, where a test is not about a busy machine.
    rest: seconds of silence after each turn of TURN_SECONDS. For a second after each request a worker of vLLM spins on
    its queue, so a few requests in every second take a whole core for good, and the same ones in turns do not.
    """

    def __init__(
        self, url: str, key: str, ca_file: Path, model: str, workers: int, tokens: int, pause: float = 0.0,
        rest: float = 0.0,
    ) -> None:  # fmt: skip
        self._pause, self._rest = pause, rest
        self._began = time.monotonic()
        self._url, self._key, self._ca, self._model, self._tokens = url, key, ca_file, model, tokens
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: list[Answer] = []
        kinds = ["stream" if number % 2 else "whole" for number in range(workers)]
        self.streams = kinds.count("stream")  # that may be in flight at a time
        self._threads = [threading.Thread(target=self._work, args=(kind,), daemon=True) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS + 10)

    def wait_for(self, count: int, seconds: float) -> None:
        """Return when this many more answers are in, or fail."""
        wanted, deadline = len(self.answers) + count, time.monotonic() + seconds
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, f"{len(self.answers)} of {wanted} answers in time"
            time.sleep(0.05)

    def table(self) -> str:
        """Counts by kind, every failure's text, n included."""
        lines = []
        for kind in ("whole", "stream"):
            answers = [answer for answer in self.answers if answer.kind == kind]
            failed = Counter(answer.error for answer in answers if answer.error)
            lines.append(f"{kind:7} n={len(answers)} failed={failed.total()} {dict(failed) or ''}")
        return "\n".join(lines)

    def failures(self, kind: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.kind == kind and answer.error]

    def _work(self, kind: str) -> None:
        # one connection a worker, as a client library keeps it
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self._ca)
        session.headers["Authorization"] = f"Bearer {self._key}"
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                error = self._stream(session, began) if kind == "stream" else self._whole(session)
            except requests.RequestException as failure:
                error = type(failure).__name__
            with self._lock:
                self.answers.append(Answer(kind, began, time.monotonic(), error))
            self._stop.wait(self._silence())

    def _silence(self) -> float:
        """Seconds until a worker asks again."""
        turn = TURN_SECONDS + self._rest
        left = turn - (time.monotonic() - self._began) % turn
        return self._pause if left > self._rest else left

    def _body(self, stream: bool) -> dict[str, object]:
        # another prompt each time: with prefix affinity one prompt is one replica's
        prompt = f"count {random.random()}"
        return {"model": self._model, "prompt": prompt, "max_tokens": self._tokens, "ignore_eos": True,
                "stream": stream}  # fmt: skip

    def _whole(self, session: requests.Session) -> str:
        answer = session.post(f"{self._url}/v1/completions", json=self._body(False), timeout=DEADLINE_SECONDS)
        if answer.status_code != 200:
            return f"HTTP {answer.status_code}"
        return "" if answer.json()["usage"]["completion_tokens"] == self._tokens else "short answer"

    def _stream(self, session: requests.Session, began: float) -> str:
        ended = False
        with session.post(
            f"{self._url}/v1/completions", json=self._body(True), timeout=DEADLINE_SECONDS, stream=True
        ) as answer:
            if answer.status_code != 200:
                return f"HTTP {answer.status_code}"
            for line in answer.iter_lines(chunk_size=None):
                if time.monotonic() - began > DEADLINE_SECONDS:
                    return "deadline"
                ended = ended or line == b"data: [DONE]"
        return "" if ended else "no [DONE]"


def only_streams_in_flight_broke(load: Load, at: float) -> None:
    """No whole answer failed, and of the streams those alone that were under way at that time (monotonic)."""
    assert not load.failures("whole"), load.table()
    broken = load.failures("stream")
    assert len(broken) <= load.streams, load.table()
    assert all(answer.began <= at for answer in broken), [answer.began - at for answer in broken]
