"""Three kinds of chat traffic for bench-balancing, about 200 requests each, and the client that sends them.

Every text starts with a nonce of its run, so that no run finds another's prefix in a cache. The toy model has one token
a byte: lengths below are tokens.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import requests

WORKERS, ANSWER_TOKENS, DEADLINE_SECONDS = 8, 8, 120
GROUPS, PREFIX, QUESTION, EACH = 12, 1500, 100, 16
CONVERSATIONS, TURNS, SYSTEM, SAID = 12, 16, 200, 80
ALONE, ALONE_LENGTH = 192, 1000

Message = dict[str, str]


@dataclass(frozen=True)
class Endpoint:
    """Base URL of a gateway or a router, its headers, and the certificate to trust (None: plain HTTP)."""

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str | None = None


@dataclass
class Answers:
    """ttft_ms: milliseconds from sending a request to its first piece of text. errors: text of each failure."""

    ttft_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def text(nonce: str, length: int) -> str:
    """Letters that start with the nonce; the same nonce gives the same text."""
    letters = random.Random(nonce).choices("abcdefghijklmnopqrstuvwxyz    ", k=length)
    return (nonce + " " + "".join(letters))[:length]


def shared_prefix(nonce: str) -> list[list[str]]:
    """GROUPS long system prompts, EACH questions to each, in a random order over all workers."""
    requests_ = [f"{group} {number}" for group in range(GROUPS) for number in range(EACH)]
    random.Random(nonce).shuffle(requests_)
    return [requests_[worker::WORKERS] for worker in range(WORKERS)]


class _Client:
    """One worker: one connection, one request after another, no retry."""

    def __init__(self, endpoint: Endpoint, answers: Answers, lock: threading.Lock) -> None:
        self._endpoint, self._answers, self._lock = endpoint, answers, lock
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update(endpoint.headers)
        self._session.verify = endpoint.ca_file or False

    def ask(self, messages: Sequence[Message]) -> str:
        """The answer's text; empty after an error."""
        body = {"model": self._endpoint.model, "messages": list(messages), "max_tokens": ANSWER_TOKENS,
                "ignore_eos": True, "stream": True}  # fmt: skip
        began, first, error, said = time.monotonic(), 0.0, "", []
        try:
            with self._session.post(
                f"{self._endpoint.url}/v1/chat/completions", json=body, stream=True, timeout=DEADLINE_SECONDS
            ) as answer:
                error = "" if answer.status_code == 200 else f"HTTP {answer.status_code}"
                for line in answer.iter_lines(chunk_size=None):
                    if not error and line.startswith(b"data: {"):
                        choices = json.loads(line[6:]).get("choices") or [{}]
                        piece = choices[0].get("delta", {}).get("content") or ""
                        first = first or (time.monotonic() if piece else 0.0)
                        said.append(piece)
        except requests.RequestException as failure:
            error = type(failure).__name__
        with self._lock:
            if first and not error:
                self._answers.ttft_ms.append(1000 * (first - began))
            else:
                self._answers.errors.append(error or "no text")
        return "".join(said)


def _shared_prefix(client: _Client, worker: int, nonce: str) -> None:
    for entry in shared_prefix(nonce)[worker]:
        group, number = entry.split()
        client.ask([
            {"role": "system", "content": text(f"{nonce}-{group}", PREFIX)},
            {"role": "user", "content": text(f"{nonce}-{group}-{number}", QUESTION)},
        ])  # fmt: skip


def _multi_turn(client: _Client, worker: int, nonce: str) -> None:
    # a worker has one or two conversations and takes turns between them, as people type
    mine = {
        number: [{"role": "system", "content": text(nonce, SYSTEM)}] for number in range(worker, CONVERSATIONS, WORKERS)
    }
    for turn in range(TURNS):
        for number, messages in mine.items():
            messages.append({"role": "user", "content": text(f"{nonce}-{number}-{turn}", SAID)})
            messages.append({"role": "assistant", "content": client.ask(messages)})


def _unshared(client: _Client, worker: int, nonce: str) -> None:
    for number in range(worker, ALONE, WORKERS):
        client.ask([{"role": "user", "content": text(f"{number}-{nonce}", ALONE_LENGTH)}])


KINDS: Mapping[str, Callable[[_Client, int, str], None]] = {
    "shared prefix": _shared_prefix,
    "multi-turn": _multi_turn,
    "unshared": _unshared,
}


def send(kind: str, endpoint: Endpoint, nonce: str) -> Answers:
    """Send one kind of traffic with WORKERS at once."""
    answers, lock = Answers(), threading.Lock()
    threads = [
        threading.Thread(target=KINDS[kind], args=(_Client(endpoint, answers, lock), worker, nonce), daemon=True)
        for worker in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
