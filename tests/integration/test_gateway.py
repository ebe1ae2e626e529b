"""The gateway as clients, strangers and operators meet it: requests in, answers and counters out."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from integration.conftest import ENGINES, PROJECT, STACK_FILE, URL, Stack, run_script
from integration.load import Load
from stack import certificates
from stack.config.gateway import Gateway
from stack.docker_host import address, containers
from waiting import until

HOST, PORT = "localhost", 18443
BODY: dict[str, Any] = {"model": "toy", "prompt": "x", "max_tokens": 2}
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def post(stack: Stack, body: Any, key: str | None = None, **headers: str) -> requests.Response:
    return stack.post("/v1/completions", body, key, headers=headers)


def raw(stack: Stack, request: bytes) -> bytes:
    """The first bytes of the answer to a request that no client library would send."""
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    with (
        socket.create_connection((HOST, PORT), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        connection.sendall(request)
        connection.settimeout(10)
        return connection.recv(4096)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def access_log(stack: Stack, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10  # the line is written when the answer is out
    while True:
        log = containers(stack.client, PROJECT)["nginx"].logs(tail=2000).decode()
        lines = [json.loads(line) for line in log.splitlines() if f'"request_id":"{request_id}"' in line]
        if lines or time.monotonic() > deadline:
            assert len(lines) == 1, lines
            return dict(lines[0])
        time.sleep(0.2)


def summed(stack: Stack, metric: str) -> float:
    """A metric, summed over the replicas."""
    total = 0.0
    for name, part in containers(stack.client, PROJECT).items():
        if name.startswith("engine-"):
            text = requests.get(f"http://{address(part, 'engines')}:8000/metrics", timeout=10).text
            lines = [line for line in text.splitlines() if line.startswith(f"{metric}{{")]
            total += sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return total


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(stack: Stack, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((HOST, PORT), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        assert connection.version() == version.name.replace("v1_", "v1.")


def test_tls_1_1_and_ciphers_without_forward_secrecy_are_not(stack: Stack) -> None:
    old = ssl.create_default_context(cafile=str(stack.ca_file))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak = ssl.create_default_context(cafile=str(stack.ca_file))
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-GCM-SHA256")
    for context in (old, weak):
        with socket.create_connection((HOST, PORT), timeout=10) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname=HOST)


def test_http_2_is_offered(stack: Stack) -> None:
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, PORT), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"


def test_every_answer_has_the_headers_that_owasp_asks_of_an_api_and_a_request_id(stack: Stack) -> None:
    answers = [post(stack, BODY), post(stack, BODY, "sk-wrong"), post(stack, {"model": "no"}), post(stack, [])]
    answers.append(requests.get(f"{URL}/docs", verify=str(stack.ca_file), timeout=10))
    assert [answer.status_code for answer in answers] == [200, 401, 404, 400, 404]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert len(answer.headers["X-Request-Id"]) == 32
        assert answer.headers["Content-Type"].startswith("application/json")
        assert "X-Replica" not in answer.headers
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


PATHS = [
    "/metrics", "/docs", "/openapi.json", "/tokenize", "/detokenize", "/version", "/invocations", "/pooling",
    "/score", "/rerank", "/sleep", "/pause", "/resume", "/update_weights", "/load", "/ping", "/health",
    "/v1/score", "/v1/responses", "/v1/load_lora_adapter", "/inference/v1/generate", "/nginx_status",
    "/internal/error", "/@error", "//v1/completions", "/v1//completions", "/v1/./completions",
    "/v1/x/../completions", "/invocations/../v1/completions", "/v1/completions/",
    "/v1/completions/../../invocations", "/v1/%63ompletions", "/v1%2fcompletions", "/V1/completions",
    "/v1/completions%00", "/v1/completions;x", "/v1/completions%3f", "/%2e%2e/metrics", "/v1/..%2fmetrics",
    "/v1\\completions",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_only_the_public_paths_as_they_are_written_lead_anywhere(stack: Stack, path: str) -> None:
    body = json.dumps(BODY).encode()
    for method in ("POST", "GET", "PUT", "OPTIONS"):
        answer = raw(stack, (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {stack.key}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body)  # fmt: skip
        assert status_of(answer) in (400, 404), answer[:200]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "FOO"])
def test_other_methods_are_refused(stack: Stack, method: str) -> None:
    answer = raw(stack, (
        f"{method} /v1/completions HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Authorization: Bearer {stack.key}\r\nConnection: close\r\n\r\n"
    ).encode())  # fmt: skip
    assert status_of(answer) in (400, 405)


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: {length}\r\nContent-Length: 1\r\n",
        "Content-Length: +{length}\r\n",
        "Content-Length: {length}, {length}\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_framing_that_two_servers_could_read_differently_is_refused(stack: Stack, framing: str) -> None:
    body = json.dumps(BODY)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {stack.key}\r\n"
    answer = raw(stack, (head + framing.format(length=len(body)) + "\r\n" + body).encode())
    assert 400 <= status_of(answer) <= 501, answer[:200]


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template": "{{ 1 }}"},
        {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
        {"prompt_embeds": "AAAA"},
        {"structured_outputs": {"regex": "(a+)+$"}},
        {"guided_regex": "(a+)+$"},
        {"media_io_kwargs": {"video": {"num_frames": 10**9}}},
        {"kv_transfer_params": {"remote_host": "127.0.0.1"}},
    ],
)
def test_fields_that_endanger_the_engine_are_refused(stack: Stack, more: dict[str, Any]) -> None:
    answer = post(stack, BODY | more)
    assert answer.status_code == 400
    assert "is not allowed" in answer.json()["error"]["message"]
    assert post(stack, BODY | dict.fromkeys(more)).status_code == 200  # null is as good as absent


def test_a_body_nested_without_end_is_refused(stack: Stack) -> None:
    data = '{"model":"toy","prompt":"x","x":' + "[" * 100_000 + "]" * 100_000 + "}"
    headers = {"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"}
    answer = requests.post(f"{URL}/v1/completions", data=data, headers=headers, verify=str(stack.ca_file), timeout=30)
    assert answer.status_code == 400


def test_a_body_of_8_mb_reaches_the_engine_whole_or_in_chunks(stack: Stack) -> None:
    body = json.dumps(BODY | {"prompt": "x" * 8_000_000}).encode()
    headers = {"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"}
    for data in (body, iter([body[:4_000_000], body[4_000_000:]])):
        answer = requests.post(
            f"{URL}/v1/completions", data=data, headers=headers, verify=str(stack.ca_file), timeout=60
        )  # fmt: skip
        assert answer.status_code == 400
        assert "context length" in answer.text  # the engine's own words: it has read all of it


def test_what_a_client_says_of_itself_is_not_what_engines_hear(stack: Stack) -> None:
    answer = post(stack, BODY, **{"X-Request-Id": "mine-1234", "X-Pool": "no-such-pool", "X-Preferred-Replica": "x"})
    assert answer.status_code == 200
    assert answer.headers["X-Request-Id"] != "mine-1234"
    assert answer.headers["X-Request-Id"] in answer.json()["id"]  # the engine was given ours
    line = access_log(stack, answer.headers["X-Request-Id"])
    assert line["client_request_id"] == "mine-1234"
    forged = post(stack, BODY, **{"X-Request-Id": 'a","status":200,"x":"'})
    assert access_log(stack, forged.headers["X-Request-Id"])["client_request_id"] == ""


def test_the_access_log_tells_all_of_a_request_but_no_prompt_and_no_key(stack: Stack) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    answer = requests.post(
        f"{URL}/v1/completions?secret={marker}", json=BODY | {"prompt": marker, "user": marker},
        headers={"Authorization": f"Bearer {stack.key}", "User-Agent": marker}, verify=str(stack.ca_file), timeout=60,
    )  # fmt: skip
    line = access_log(stack, answer.headers["X-Request-Id"])
    expected = {"client": "default", "model": "toy", "pool": "toy", "method": "POST", "path": "/v1/completions",
                "status": 200, "retried": False}  # fmt: skip
    assert {key: line[key] for key in expected} == expected
    assert line["replica"].startswith("engine-toy-")
    assert line["bytes"] > 0
    # by two clocks of nginx, which round apart
    assert 0 < float(line["time_to_first_byte"]) <= line["time_total"] + 0.002
    for name, part in containers(stack.client, PROJECT).items():
        log = part.logs(tail=2000).decode(errors="replace")
        assert marker not in log, name
        assert stack.key not in log, name


def test_a_client_that_hangs_up_ends_its_generation(stack: Stack) -> None:
    until(lambda: summed(stack, "vllm:num_requests_running") == 0, 30)
    before = summed(stack, "vllm:generation_tokens_total")
    body = BODY | {"max_tokens": 1900, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {stack.key}"}
    answer = requests.post(
        f"{URL}/v1/completions", json=body, headers=headers, verify=str(stack.ca_file), timeout=30, stream=True
    )
    next(answer.iter_lines(chunk_size=None))
    answer.close()
    until(lambda: summed(stack, "vllm:num_requests_running") == 0, 30)
    generated = summed(stack, "vllm:generation_tokens_total") - before
    print(f"\n{generated:.0f} of 1900 tokens were generated for a client that hung up")
    assert 1 <= generated < 1500


def test_a_reader_that_stops_reading_holds_up_nobody(stack: Stack) -> None:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {stack.key}\r\nContent-Length: "
    body = json.dumps(BODY | {"max_tokens": 1500, "ignore_eos": True, "stream": True})
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        plain.connect((HOST, PORT))
        with context.wrap_socket(plain, server_hostname=HOST) as connection:
            connection.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
            for _ in range(10):
                assert post(stack, BODY).status_code == 200


def test_keys_come_and_go_by_command_and_no_stream_notices(stack: Stack) -> None:
    with Load(URL, stack.key, stack.ca_file, "toy", workers=2, tokens=64, pause=0.2) as load:
        key = stack.script("keys", "add", "search", "--rate", "2").out.strip()
        assert post(stack, BODY, key).status_code == 200
        second = stack.script("keys", "add", "search").out.strip()
        assert stack.script("keys", "add", "search").code == 2, "two keys at once are enough to change over"
        listing = json.loads(stack.script("keys", "list", "--json").out)
        ids = [row["key"] for row in listing if row["client"] == "search"]
        assert len(ids) == 2
        ambiguous = stack.script("keys", "revoke", "search")
        assert (ambiguous.code, ids[0] in ambiguous.err) == (2, True)
        assert stack.script("keys", "revoke", "search", "--key", ids[0]).code == 0
        assert post(stack, BODY, key).status_code == 401
        time.sleep(2)
        assert post(stack, BODY, second).status_code == 200
        assert stack.script("up").out.startswith("Nothing changed"), "kept over make up"
        assert stack.script("keys", "revoke", "search").code == 0
        assert post(stack, BODY, second).status_code == 401
    print(f"\nkeys added and revoked under load:\n{load.table()}")
    assert not load.failures("whole") + load.failures("stream"), load.table()
    secrets = (stack.state / "secrets/clients.json").read_text()
    assert key not in secrets
    assert second not in secrets


def test_a_clients_limits_hold(stack: Stack) -> None:
    arguments = ["--rate", "3", "--max-body-size-mib", "1"]
    key = stack.script("keys", "add", "limited", *arguments).out.strip()
    try:
        answers = [post(stack, BODY, key) for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 200 in {answer.status_code for answer in answers}
        assert refused
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
        assert post(stack, BODY).status_code == 200, "another client is not held up"
        time.sleep(2)
        assert post(stack, BODY | {"prompt": "x" * 1_100_000}, key).status_code == 413
    finally:
        assert stack.script("keys", "revoke", "limited").code == 0


def test_a_client_gets_no_more_at_once_than_it_may(stack: Stack) -> None:
    key = stack.script("keys", "add", "single", "--concurrency", "1").out.strip()
    long = BODY | {"max_tokens": 1500, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with requests.post(
            f"{URL}/v1/completions", json=long, headers=headers, verify=str(stack.ca_file), timeout=30, stream=True
        ) as one:
            assert one.status_code == 200
            lines = one.iter_lines(chunk_size=None)  # held: urllib3 hangs up when its generator is dropped
            assert next(lines)
            assert post(stack, BODY, key).status_code == 429
            assert post(stack, BODY).status_code == 200, "another client is not held up"
    finally:
        assert stack.script("keys", "revoke", "single").code == 0


def test_a_client_is_told_of_its_own_models_only(stack: Stack) -> None:
    key = stack.script("keys", "add", "narrow").out.strip()
    store = stack.state / "secrets/clients.json"
    document = json.loads(store.read_text())
    document["narrow"]["models"] = ["another"]  # this stack serves one model: give the client one that is elsewhere
    store.chmod(0o600)
    store.write_text(json.dumps(document))
    try:
        assert stack.script("keys", "add", "narrow").code == 0
        answer = post(stack, BODY, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        listed = requests.get(
            f"{URL}/v1/models", headers={"Authorization": f"Bearer {key}"}, verify=str(stack.ca_file), timeout=10
        )  # fmt: skip
        assert listed.json()["data"] == []
    finally:
        for row in json.loads(stack.script("keys", "list", "--json").out):
            if row["client"] == "narrow":
                stack.script("keys", "revoke", "narrow", "--key", row["key"])


@pytest.mark.parametrize("name", ["", "A", "a b", "a\nb", "a'b", '"', "../x", "-", "x" * 64])
def test_a_clients_name_cannot_break_out_of_anything(stack: Stack, name: str) -> None:
    before = (stack.state / "live/manifest.json").read_bytes()
    assert stack.script("keys", "add", "--", name).code == 2
    assert (stack.state / "live/manifest.json").read_bytes() == before


def test_a_renewed_certificate_is_shown_and_no_stream_notices(stack: Stack, tmp_path: Path) -> None:
    own, _ = certificates.ensure(tmp_path, Gateway(server_name="own.example.org"), tmp_path)
    files = (certificates.certificate_file(tmp_path, own), certificates.private_key_file(tmp_path, own))
    tls = {"certificate": str(files[0]), "key": str(files[1])}
    gateway = {"listen": "127.0.0.1", "https_port": 18443, "api_keys": ["default", "second"], "tls": tls}
    changed = stack.changed(tmp_path, gateway=gateway)
    both = tmp_path / "both.pem"
    both.write_bytes(stack.ca_file.read_bytes() + files[0].read_bytes())
    with Load(URL, stack.key, both, "toy", workers=2, tokens=200) as load:
        load.wait_for(2, seconds=60)
        done = run_script("tls_reload", str(changed))
        assert (done.code, own in done.out) == (0, True), done.err
        assert ssl.get_server_certificate((HOST, PORT)).strip() == files[0].read_text().strip()
        load.wait_for(2, seconds=60)
    print(f"\nthe certificate changed under load:\n{load.table()}")
    assert not load.failures("whole") + load.failures("stream"), load.table()
    assert stack.script("tls_reload").code == 0
    assert ssl.get_server_certificate((HOST, PORT)).strip() == stack.ca_file.read_text().strip() != files[0].read_text()
    files[1].unlink()
    files[1].write_text("not a key")
    refused = run_script("tls_reload", str(changed))
    assert (refused.code, "do not work together" in refused.err) == (2, True)


def test_a_drained_replica_gets_nothing_and_stays_drained(stack: Stack) -> None:
    def replicas() -> set[str]:
        answers = [post(stack, BODY | {"prompt": f"{number}"}) for number in range(12)]  # a prefix is one replica's
        return {access_log(stack, answer.headers["X-Request-Id"])["replica"] for answer in answers}

    try:
        with Load(URL, stack.key, stack.ca_file, "toy", workers=3, tokens=32, pause=0.1) as load:
            load.wait_for(20, seconds=60)
            done = stack.script("drain", "engine-toy-0", "--json")
            assert json.loads(done.out) == {"replica": "engine-toy-0", "drained": True, "in_flight": 0}, done.err
            load.wait_for(10, seconds=60)
            assert replicas() == {"engine-toy-1"}
            assert stack.script("drain", "engine-toy-1").code == 2, "the last one is not drained without a word"
        print(f"\na replica drained under load:\n{load.table()}")
        assert not load.failures("whole") + load.failures("stream"), load.table()
        assert stack.script("up").out.startswith("Nothing changed")
        for service in ("haproxy", "haproxy-standby"):
            containers(stack.client, PROJECT)[service].restart(timeout=10)
        until(lambda: post(stack, BODY).status_code == 200, 30)
        assert replicas() == {"engine-toy-1"}
        assert stack.script("smoke").code == 0
    finally:
        assert stack.script("drain", "engine-toy-0", "--undo").code == 0
    until(lambda: replicas() == set(ENGINES), 40)


def test_with_affinity_a_conversation_stays_on_its_replica(stack: Stack, tmp_path: Path) -> None:
    models = [model | {"balancing": "prefix_affinity"} for model in yaml.safe_load(STACK_FILE.read_text())["models"]]
    assert stack.script("up", stack=stack.changed(tmp_path, models=models)).code == 0
    replicas: dict[str, set[str]] = {}
    for turn, start in product(range(3), "abcdefgh"):
        messages = [{"role": "user", "content": start}]
        messages += [{"role": "assistant", "content": "so"}, {"role": "user", "content": f"and {turn}?"}] * turn
        answer = requests.post(
            f"{URL}/v1/chat/completions", json={"model": "toy", "messages": messages, "max_tokens": 1},
            headers={"Authorization": f"Bearer {stack.key}"}, verify=str(stack.ca_file), timeout=60,
        )  # fmt: skip
        assert answer.status_code == 200
        replicas.setdefault(start, set()).add(access_log(stack, answer.headers["X-Request-Id"])["replica"])
    assert stack.script("up").code == 0
    assert all(len(each) == 1 for each in replicas.values()), replicas
    assert len(set.union(*replicas.values())) == 2, replicas


def test_plain_http_on_the_tls_port_is_told_so(stack: Stack) -> None:
    connection = http.client.HTTPConnection(HOST, PORT, timeout=10)
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["error"]["type"] == "invalid_request_error"
