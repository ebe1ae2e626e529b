"""An engine that misbehaves on request, on port 8000 of an engine's container: python3 stub_engine.py MODE.

It is a good one until SIGUSR1, and again after SIGUSR2. Between them, by MODE: `failing` answers 500 to all, /health
too; `lying` answers 500 to all but /health; `torn` ends its answers in the middle. `good` stays good. A prompt of
"poison" is answered with 500, one of "wait N" after N seconds. Real engines cannot be made to do that; what is tested
is the gateway and the watchdog.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode = "good"
EVENT = b'data: {"choices":[{"text":"x"}]}\n\n'


class Handler(BaseHTTPRequestHandler):
    """Answers as vLLM does, as far as the gateway and its clients look."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """/health and /metrics."""
        self._answer(500 if mode == "failing" else 200, b"vllm:iteration_tokens_total_count 1\n")

    def do_POST(self) -> None:
        """A completion, whole or as a stream."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = str(body.get("prompt"))
        print(f"asked {prompt.split(maxsplit=1)[0]}", flush=True)
        if mode in ("failing", "lying") or prompt == "poison":
            self._answer(500, b'{"error":{"message":"broken","type":"server_error","param":null,"code":500}}')
            return
        if prompt.startswith("wait "):
            time.sleep(float(prompt.split()[1]))
        tokens = body["max_tokens"]
        if body.get("stream"):
            self._answer(200, EVENT * tokens + b"data: [DONE]\n\n", "text/event-stream")
        else:
            self._answer(200, json.dumps({"usage": {"completion_tokens": tokens}, "pad": "x" * 200}).encode())

    def _answer(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        torn = mode == "torn" and self.command == "POST"
        self.wfile.write(content[:20] if torn else content)
        self.close_connection = self.close_connection or torn

    def log_message(self, *_: object) -> None:
        """Requests are printed by do_POST, checks are not."""


class Server(ThreadingHTTPServer):
    """Many requests at once, as an engine takes them."""

    daemon_threads = True
    request_queue_size = 1024


def turn(number: int, _: object) -> None:
    """From now on it is what it was started as, or good again."""
    global mode  # noqa: PLW0603 - a signal handler has nothing else to write to
    mode = sys.argv[1] if number == signal.SIGUSR1 else "good"
    print("turned", mode, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, turn)
    signal.signal(signal.SIGUSR2, turn)
    Server(("", 8000), Handler).serve_forever()
