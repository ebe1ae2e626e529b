"""The probing client: what a healthy stack would not answer is refused, and nothing is tried twice."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from stack.gateway_client import GatewayClient, Refused
from unit.authority import OWN, write_own
from unit.loopback import Answer, Server, serve

USAGE = {"usage": {"completion_tokens": 3}}
COMPLETION = {"choices": [{"text": "abc"}], **USAGE}
CHAT = {"choices": [{"message": {"content": "abc"}}], **USAGE}
PIECE = {"choices": [{"text": "a"}]}


def client(server: Server, key: str | None = "sk-test", timeout: float = 30) -> GatewayClient:
    return GatewayClient(server.url, key, timeout=timeout)


def stream_of(*events: object, end: bool = True) -> Answer:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * end
    return Answer(200, "".join(lines).encode(), {"Content-Type": "text/event-stream"})


def test_a_completion_is_asked_for_as_a_client_would_and_counted() -> None:
    with serve(Answer.of(COMPLETION)) as server:
        assert client(server).completion("toy", "Hello") == "3 tokens"
    assert server.paths == ["/v1/completions"]
    assert server.authorizations == ["Bearer sk-test"]
    assert (server.bodies[0]["model"], server.bodies[0]["prompt"]) == ("toy", "Hello")


def test_a_chat_sends_messages_and_is_counted() -> None:
    with serve(Answer.of(CHAT)) as server:
        assert client(server).chat("toy", "Hello") == "3 tokens"
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_model_that_only_reasons_has_answered() -> None:
    message = {"content": None, "reasoning_content": "hm"}
    with serve(Answer.of({"choices": [{"message": message}], **USAGE})) as server:
        assert client(server).chat("toy", "Hello") == "3 tokens"


def test_a_stream_with_pieces_and_its_end_mark_is_good() -> None:
    with serve(stream_of(PIECE, PIECE, PIECE)) as server:
        assert re.fullmatch(r"first token after \d+ ms, 3 pieces", client(server).stream("toy", "Hello"))
    assert server.bodies[0]["stream"] is True


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (stream_of(PIECE, PIECE, end=False), "broke off after 2 pieces"),
        (stream_of(), "broke off after 0 pieces"),
        (Answer(200), "broke off after 0 pieces"),
        (stream_of(PIECE, {"error": {"message": "engine died"}}), "error inside the stream.*engine died"),
        (Answer.of({"error": {"message": "queue is full"}}, 503), "HTTP 503: queue is full"),
    ],
)
def test_a_stream_that_is_not_whole_is_refused(answer: Answer, said: str) -> None:
    with serve(answer) as server, pytest.raises(Refused, match=said):
        client(server).stream("toy", "Hello")


def test_a_stream_that_is_slower_than_its_deadline_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=31)
    monkeypatch.setattr("stack.gateway_client.time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    with serve(stream_of(PIECE)) as server, pytest.raises(Refused, match="not over after 30 s"):
        client(server, timeout=30).stream("toy", "Hello")


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"text": ""}], **USAGE},
        {"choices": [{"text": "abc"}], "usage": {"completion_tokens": 0}},
    ],
)
def test_an_answer_without_a_token_is_refused(body: object) -> None:
    with serve(Answer.of(body)) as server, pytest.raises(Refused, match="without a token"):
        client(server).completion("toy", "Hello")


@pytest.mark.parametrize("content", ["", None])
def test_a_chat_without_a_word_is_refused(content: str | None) -> None:
    body = {"choices": [{"message": {"content": content}}], **USAGE}
    with serve(Answer.of(body)) as server, pytest.raises(Refused, match="without a token"):
        client(server).chat("toy", "Hello")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer.of({"error": {"message": "no such model"}}, 404), "HTTP 404: no such model"),
        (Answer(502, b"<html>Bad Gateway</html>"), "HTTP 502: <html>Bad Gateway"),
        (Answer.of(["odd"], 500), r'HTTP 500: \["odd"\]'),
        (Answer(503), "HTTP 503: Service Unavailable"),
    ],
)
def test_an_error_is_told_with_its_status_and_message(answer: Answer, said: str) -> None:
    with serve(answer) as server, pytest.raises(Refused, match=said) as refused:
        client(server).completion("toy", "Hello")
    assert refused.value.status == answer.status


def test_a_stranger_who_gets_401_is_as_it_should_be() -> None:
    with serve(Answer.of({"error": {}}, 401)) as server:
        assert client(server).refuses("sk-wrong", "toy") == "401"
        assert client(server).refuses(None, "toy") == "401"
    # with the key that was asked for, never with the client's own
    assert server.authorizations == ["Bearer sk-wrong", None]


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_a_stranger_who_gets_anything_else_is_a_failure(status: int) -> None:
    with serve(Answer.of({}, status)) as server, pytest.raises(Refused, match="401 was expected") as refused:
        client(server).refuses("sk-wrong", "toy")
    assert refused.value.status == status


@pytest.mark.parametrize(
    "ask",
    [
        lambda it: it.completion("toy", "Hello"),
        lambda it: it.chat("toy", "Hello"),
        lambda it: it.stream("toy", "Hello"),
        lambda it: it.refuses(None, "toy"),
        lambda it: it.models(),
    ],
)
@pytest.mark.parametrize("answer", [Answer(reset=True), Answer(503), Answer(500)])
def test_nothing_is_tried_twice(ask: Callable[[GatewayClient], object], answer: Answer) -> None:
    with serve(answer) as server, pytest.raises((Refused, requests.ConnectionError)):
        ask(client(server))
    assert server.connections == 1
    assert len(server.paths) == 1


def test_names_of_the_models_are_listed() -> None:
    with serve(Answer.of({"data": [{"id": "a"}, {"id": "b"}]})) as server:
        assert client(server).models() == ["a", "b"]
    assert server.paths == ["/v1/models"]


def test_a_slash_after_the_address_does_no_harm() -> None:
    with serve(Answer.of({"data": []})) as server:
        GatewayClient(server.url + "/", None).models()
    assert server.paths == ["/v1/models"]


@pytest.mark.parametrize("issuer", [None, "A private authority"])
def test_the_certificate_is_checked_for_the_servers_own_name(tmp_path: Path, issuer: str | None) -> None:
    """The gateway is asked at its address but proves another name; the certificate itself is enough to trust it."""
    write_own(tmp_path, name="llm.example.org", issuer=issuer)
    certificate, key = (tmp_path / OWN[which] for which in ("certificate", "key"))
    with serve(Answer.of({"data": []}), tls=(certificate, key)) as server:
        named = GatewayClient(server.url, None, ca_file=certificate, server_name="llm.example.org")
        assert named.models() == []
        assert server.hosts == ["llm.example.org"]
        for name, trusted in (("other.example.org", certificate), ("llm.example.org", None)):
            with pytest.raises(requests.exceptions.SSLError):
                GatewayClient(server.url, None, ca_file=trusted, server_name=name).models()


def test_a_gateway_on_this_host_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Answer.of({"data": []})) as server, serve(Answer.of({"data": [{"id": "proxied"}]})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert client(server).models() == []
        assert GatewayClient(server.url, None, elsewhere=True).models() == ["proxied"]
