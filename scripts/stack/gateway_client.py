"""A client of the OpenAI API that never retries and has a deadline: what fails here failed for a user."""

from __future__ import annotations

import json
import math
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

MAX_TOKENS = 8


class Refused(Exception):  # noqa: N818 - reads as what happened
    """The answer is not the one a healthy stack gives."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"HTTP {status}: {message}")


class _NamedHost(HTTPAdapter):
    """Connects to the URL's address but checks the certificate for another name, as `curl --resolve` does."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        name = self._server_name
        # a certificate that is trusted by itself is enough, as it is to curl: its issuer may be a private authority
        context = ssl.create_default_context()
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        options |= {"ssl_context": context, "server_hostname": name, "assert_hostname": name}
        super().init_poolmanager(*arguments, **options)


class GatewayClient:
    """One base URL and key. timeout: seconds without a byte, and limit of a whole stream.

    elsewhere: the gateway may be behind the environment's proxy; one on this host never is.
    """

    def __init__(
        self, url: str, key: str | None, *, ca_file: Path | None = None, server_name: str | None = None,
        elsewhere: bool = False, timeout: float = 60.0,
    ) -> None:  # fmt: skip
        self._url, self._key, self._timeout = url.rstrip("/"), key, timeout
        self._session = requests.Session()
        self._session.trust_env = elsewhere
        # given with each request: of a session's own, requests thinks less than of the environment's
        self._verify = str(ca_file) if ca_file else True
        self._session.headers["Host"] = server_name or urlsplit(url).netloc
        if server_name and url.startswith("https://"):
            self._session.mount("https://", _NamedHost(server_name))

    def models(self) -> list[str]:
        """Names served."""
        answer = self._session.get(
            f"{self._url}/v1/models", headers=self._headers(self._key), timeout=self._timeout, verify=self._verify
        )
        return [str(model["id"]) for model in _good(answer)["data"]]

    def completion(self, model: str, prompt: str) -> str:
        """One completion; a short description of it. Raises Refused."""
        body = {"model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}
        answer = _good(self._post("completions", body))
        return _counted(answer, answer["choices"][0]["text"])

    def embedding(self, model: str, text: str) -> str:
        """One embedding; a short description of it. Raises Refused."""
        answer = _good(self._post("embeddings", {"model": model, "input": text}))
        vector = answer["data"][0]["embedding"]
        if not vector or not all(math.isfinite(number) for number in vector) or not any(vector):
            raise Refused(200, f"an embedding of {len(vector)} numbers that says nothing")
        return f"{len(vector)} dimensions"

    def chat(self, model: str, prompt: str) -> str:
        """One chat completion; a short description of it. Raises Refused."""
        answer = _good(self._post("chat/completions", self._chat_body(model, prompt)))
        message = answer["choices"][0]["message"]
        return _counted(answer, message.get("content") or message.get("reasoning_content") or "")

    def stream(self, model: str, prompt: str) -> str:
        """One streamed completion: pieces, end mark, time to first token. Raises Refused."""
        body = {"model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0, "stream": True}
        began, first, pieces, ended = time.monotonic(), 0.0, 0, False
        with self._post("completions", body, stream=True) as answer:
            if answer.status_code != 200:
                _good(answer)
            for line in answer.iter_lines(chunk_size=None):
                if time.monotonic() - began > self._timeout:
                    raise Refused(200, f"the stream is not over after {self._timeout:g} s")
                if line == b"data: [DONE]":
                    ended = True
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise Refused(200, f"error inside the stream: {event['error']}")
                    first = first or time.monotonic() - began
                    pieces += 1
        if not ended or not pieces:
            raise Refused(200, f"the stream broke off after {pieces} pieces, without its end mark")
        return f"first token after {first * 1000:.0f} ms, {pieces} pieces"

    def refuses(self, key: str | None, model: str) -> str:
        """A request with this key gets 401. Raises Refused when it does not."""
        body = {"model": model, "prompt": "x", "max_tokens": 1}
        answer = self._session.post(
            f"{self._url}/v1/completions",
            json=body,
            headers=self._headers(key),
            timeout=self._timeout,
            verify=self._verify,
        )
        if answer.status_code != 401:
            raise Refused(answer.status_code, "401 was expected: the gateway lets strangers in")
        return "401"

    def _chat_body(self, model: str, prompt: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}

    def _post(self, path: str, body: dict[str, Any], *, stream: bool = False) -> requests.Response:
        return self._session.post(
            f"{self._url}/v1/{path}",
            json=body,
            headers=self._headers(self._key),
            timeout=self._timeout,
            verify=self._verify,
            stream=stream,
        )

    @staticmethod
    def _headers(key: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}


def _good(answer: requests.Response) -> Any:
    if answer.status_code != 200:
        try:
            message = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = answer.text[:200] or answer.reason
        raise Refused(answer.status_code, str(message))
    return answer.json()


def _counted(answer: Any, text: str) -> str:
    tokens = int(answer["usage"]["completion_tokens"])
    if tokens < 1 or not text:
        raise Refused(200, "an answer without a token")
    return f"{tokens} tokens"
