"""Limits and faults of the gateway that have not been seen passing on a quiet machine yet."""

from __future__ import annotations

import subprocess
import time

import requests

from integration.conftest import PROJECT, URL, Stack
from integration.load import Load
from integration.test_gateway import BODY, post
from stack.docker_host import containers


def test_a_client_gets_no_more_at_once_than_it_may(stack: Stack) -> None:
    key = stack.script("keys", "add", "single", "--concurrency", "1").out.strip()
    long = BODY | {"max_tokens": 1500, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with requests.post(
            f"{URL}/v1/completions", json=long, headers=headers, verify=str(stack.ca_file), timeout=30, stream=True
        ) as one:
            assert one.status_code == 200
            assert next(one.iter_lines(chunk_size=None))
            assert post(stack, BODY, key).status_code == 429
            assert post(stack, BODY).status_code == 200, "another client is not held up"
    finally:
        assert stack.script("keys", "revoke", "single").code == 0


def test_haproxy_killed_under_load_fails_no_request(stack: Stack) -> None:
    with Load(URL, stack.key, stack.ca_file, "toy", workers=4, tokens=16) as load:
        load.wait_for(100, seconds=120)
        killed = time.monotonic()
        containers(stack.client, PROJECT)["haproxy"].kill()
        subprocess.run(["docker", "start", f"{PROJECT}-haproxy-1"], check=True, capture_output=True)
        load.wait_for(400, seconds=240)
    print(f"\nkill -9 of one of two HAProxy under load:\n{load.table()}")
    assert len(load.answers) >= 500
    assert not load.failures("whole"), load.table()
    assert all(answer.began <= killed for answer in load.failures("stream")), load.table()
