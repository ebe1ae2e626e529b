"""Nothing secret leaves in a diagnosis, and what a reader needs is left."""

from __future__ import annotations

import json
import tarfile
import threading
import time
from pathlib import Path

import pytest

from stack.day2.diagnose import Part, bounded, gathered, write
from stack.day2.diagnose_parts import known_secrets
from stack.day2.redact import MASK, redactor

REDACT = redactor(["known-value-of-ours"])


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("see known-value-of-ours there", "known-value-of-ours"),
        ("DB_PASSWORD=hunter2hunter2", "hunter2"),
        ("password: 12345678", "12345678"),
        ('{"api_key": "abcdef123"}', "abcdef123"),
        ('["--api-key", "abcdef123"]', "abcdef123"),
        ("vllm serve --api-key abcdef1234567 --port 1", "abcdef1234567"),
        ("GET /v1/models?api_key=abcdef HTTP/1.1", "abcdef"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ('"Authorization": "Bearer abc.def.ghi"', "abc.def"),
        ("got 'Bearer abcdefgh123' from there", "abcdefgh123"),
        ("proxy http://user:pa55@proxy.example.org:3128/", "pa55"),
        ("https://oauth-token@git.example.org/x", "oauth-token"),
        ("key sk-abcDEF0123456789_-xyz was used", "abcDEF0123456789"),
        ("HF_TOKEN=hf_abcdefghijklmnopqrstuv", "abcdefghijklmnopqrstuv"),
        ("gho_abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
        ("AKIAABCDEFGHIJKLMNOP", "ABCDEFGHIJKLMNOP"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "eyJzdWIiOiIx"),
        ("Set-Cookie: session=abcd1234", "abcd1234"),
        ("mail jane.doe@example.org about it", "jane.doe"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEabc\n-----END PRIVATE KEY-----", "MIIEabc"),
        ('"-----BEGIN EC PRIVATE KEY-----\\nMIIEabc\\n-----END EC PRIVATE KEY-----"', "MIIEabc"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEcut off", "MIIEcut"),
    ],
)
def test_a_secret_of_any_kind_is_taken_out(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in REDACT(text)


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 128",
        '"max_tokens": 1234567',
        "token_file: secrets/hub-token",
        '"eos_token_id": 2, "pad_token": "<pad>"',
        'vllm:generation_tokens_total{model="toy"} 12345678',
        "Avg prompt throughput: 1234.5 tokens/s, Running: 3 reqs",
        "no API key was given for this request",
        "ssl_certificate_key /etc/nginx/tls/0123456789abcdef.key;",
        "image library/nginx:1.31.3@sha256:" + "ab" * 32,
        "https://hub.example.org/org/model",
        "TOKEN=${HF_TOKEN}",
        "password: null",
    ],
)
def test_what_a_reader_needs_is_left(text: str) -> None:
    assert REDACT(text) == text


@pytest.mark.parametrize("piece", ["-", "_", "a-", "a.", "a@", "eyJ-", "token ", "://a", "-----BEGIN PRIVATE KEY-----"])
def test_no_text_takes_long(piece: str) -> None:
    began = time.monotonic()
    REDACT(piece * (200_000 // len(piece)))
    assert time.monotonic() - began < 10  # a tenth; with a repetition in a repetition it would be minutes to hours


def test_secrets_of_the_stack_and_of_the_environment_are_known(tmp_path: Path) -> None:
    keys = tmp_path / "secrets/api-keys"
    keys.mkdir(parents=True)
    (keys / "default").write_text("one-word-of-a-persons-own\n")
    (tmp_path / "secrets/clients.json").write_text(
        json.dumps({"production": {"keys": [{"sha256": "cd" * 32}]}}, indent=1)
    )
    (tmp_path / "secrets/engine.yaml").write_text("api-key: 'of-an-engine'\n")
    nginx = tmp_path / "live/nginx"
    nginx.mkdir(parents=True)
    (nginx / "keys.json").write_text(json.dumps({"ab" * 32: "default"}))
    token = tmp_path / "hub-token"
    token.write_text("a-gated-token\n")
    known = known_secrets(tmp_path, (token, tmp_path / "none"), {"MY_PASSWORD": "from-environment", "PATH": "/usr/bin"})
    wanted = {"one-word-of-a-persons-own", "cd" * 32, "ab" * 32, "of-an-engine", "a-gated-token", "from-environment"}
    assert known == wanted | {"api-key: 'of-an-engine'"}


def test_a_part_that_fails_or_hangs_is_noted_and_the_others_are_there(tmp_path: Path) -> None:
    def fail() -> dict[str, str]:
        raise OSError("password=abcdefgh is wrong")

    forever = threading.Event()

    def hang() -> dict[str, str]:
        forever.wait()
        return {}

    parts = [Part("bad", fail), Part("hangs", hang), Part("good", lambda: {"a.txt": "known-value-of-ours and more"})]
    files, notes = gathered(parts, REDACT, seconds=0.5)
    forever.set()
    assert files == {"a.txt": f"{MASK} and more"}
    errors = {note.name: note.error for note in notes}
    assert list(errors) == ["bad", "hangs", "good"]
    assert errors["bad"] == f"OSError: password={MASK} is wrong"
    assert "hangs" in str(errors["hangs"])
    assert errors["good"] is None
    path = tmp_path / "out/x.tar.gz"
    write(path, "x", files, notes, {"stack": "s"})
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["x/index.json", "x/a.txt"]


def test_a_secret_on_the_edge_of_what_is_cut_is_gone_too() -> None:
    text = "x" * 95 + "known-value-of-ours" + "y" * 200
    files, _ = gathered([Part("log", lambda: {"log": text})], lambda part: bounded(REDACT(part), 200))
    assert "known" not in files["log"]
    assert "characters left out" in files["log"]
    assert len(files["log"]) < 260


def test_an_archive_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.day2.diagnose.TOTAL_BYTES", 10)
    write(tmp_path / "x.tar.gz", "x", {"a": "123456", "b": "123456", "c": "1234"}, [], {})
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        assert archive.getnames() == ["x/index.json", "x/a", "x/c"]
        index = archive.extractfile("x/index.json")
        assert index is not None
        assert json.loads(index.read())["left_out_as_too_large"] == ["b"]
