"""The whole path on real parts. The order matters: each engine start costs half a minute, so tests share them."""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from docker.models.images import Image

from integration.conftest import ENGINES, OUTSIDE_PORT, PROJECT, STACK_FILE, URL, Stack, run_script
from integration.load import Load
from stack.docker_host import condition, containers
from waiting import until

CHAT = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


def test_up_ends_with_a_curl_line_that_works_when_pasted(stack: Stack) -> None:
    line = next(line for line in stack.first_up.out.splitlines() if line.startswith("curl "))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]
    assert stack.key not in stack.first_up.out + stack.first_up.err


def test_a_second_up_changes_and_restarts_nothing(stack: Stack) -> None:
    before, began = stack.started(), time.monotonic()
    done = stack.script("up")
    print(f"\nsecond up: {time.monotonic() - began:.1f} s (n=1)")
    assert done.code == 0, done.err
    assert done.out.startswith("Nothing changed, nothing was restarted.")
    assert stack.started() == before


def test_smoke_passes_every_check_and_prints_json(stack: Stack) -> None:
    done = stack.script("smoke", "--json")
    report = json.loads(done.out)
    assert (done.code, report["passed"]) == (0, True), done.out
    names = {check["name"] for check in report["checks"]}
    assert {f"replica {name}" for name in ENGINES} | {"chat toy", "stream toy", "metrics", "bad key refused"} <= names
    assert all(check["status"] == "passed" for check in report["checks"])


def test_smoke_from_elsewhere_sees_what_a_client_sees(stack: Stack) -> None:
    key_file = stack.state / "secrets/api-keys/second"
    done = stack.script("smoke", "--url", URL, "--key-file", str(key_file), "--ca-file", str(stack.ca_file))
    assert done.code == 0, done.out + done.err
    assert "The stack serves." in done.out


def test_smoke_fails_and_says_where_to_look_when_a_part_is_gone(stack: Stack) -> None:
    part = stack.part("alertmanager")
    part.stop(timeout=5)
    try:
        done = stack.script("smoke")
        assert done.code == 1
        assert "part alertmanager: exited" in done.out.replace("LookupError: ", "")
        assert "make logs SERVICE=alertmanager" in done.out
        assert stack.script("status").code == 1
    finally:
        part.start()
    assert stack.script("status").code == 0


@pytest.mark.parametrize("key", ["", "sk-wrong", "Bearer", "two words", "constructor"])
def test_strangers_get_401_in_openai_shape(stack: Stack, key: str) -> None:
    answer = stack.post("/v1/chat/completions", CHAT, key)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/health", "/docs", "/openapi.json", "/tokenize", "/invocations", "/v1/load_lora_adapter",
             "/v1//chat/completions/x", "/internal/error", "/sleep"],
)  # fmt: skip
def test_everything_else_is_404(stack: Stack, path: str) -> None:
    answer = stack.post(path, CHAT)
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["message"]


def test_errors_of_the_body_are_told_in_openai_shape(stack: Stack) -> None:
    unknown = stack.post("/v1/completions", {"model": "gpt-4", "prompt": "x"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    bodies: list[Any] = [[], {"prompt": "x"}, {"model": 3}, {"model": "__proto__"}]
    for body in bodies:
        assert stack.post("/v1/completions", body).status_code in (400, 404)
    headers = {"Authorization": f"Bearer {stack.key}"}
    torn = requests.post(URL + "/v1/completions", data="{", headers=headers, verify=str(stack.ca_file), timeout=60)
    assert torn.status_code == 400
    large = stack.post("/v1/completions", {"model": "toy", "prompt": "x" * 9_000_000})
    assert large.status_code == 413


def test_models_are_listed_from_the_plan(stack: Stack) -> None:
    answer = requests.get(
        URL + "/v1/models", headers={"Authorization": f"Bearer {stack.key}"}, verify=str(stack.ca_file), timeout=60
    )
    assert [model["id"] for model in answer.json()["data"]] == ["toy"]


def test_tokens_arrive_one_by_one(stack: Stack) -> None:
    body = {"model": "toy", "prompt": "x", "max_tokens": 400, "ignore_eos": True, "stream": True}
    began = time.monotonic()
    with stack.post("/v1/completions", body, stream=True) as answer:
        times = [time.monotonic() - began for line in answer.iter_lines(chunk_size=None) if line.startswith(b"data")]
    print(f"\nfirst token after {times[0]:.3f} s, last after {times[-1]:.3f} s, {len(times)} events")
    assert times[0] < times[-1] / 2


def test_only_nginx_is_published_to_the_world(stack: Stack) -> None:
    published = {
        (service, binding["HostIp"])
        for service, part in containers(stack.client, PROJECT).items()
        for bindings in part.attrs["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {(part, "127.0.0.1") for part in ("nginx", "prometheus", "alertmanager")}  # listen: 127.0.0.1
    with socket.create_connection(("127.0.0.1", 18443), timeout=5):
        pass


def test_engines_have_no_route_out(stack: Stack, outside: str) -> None:
    try_it = f"import socket; socket.create_connection(('{outside}', {OUTSIDE_PORT}), timeout=3)"
    running = containers(stack.client, PROJECT)
    for name in ENGINES:
        assert cast("int", running[name].exec_run(["python3", "-c", try_it]).exit_code) != 0, name
    # the same machine is reached from a network that has a route, so the refusals above mean something
    image = cast("Image", running[ENGINES[0]].image)
    stack.client.containers.run(
        image, entrypoint=["python3"], command=["-c", try_it], network=f"{PROJECT}_edge", remove=True
    )


def test_prometheus_scrapes_what_the_plan_says(stack: Stack) -> None:
    def up() -> dict[str, int]:
        query = {"query": "count by (job) (up == 1)"}
        answer = requests.get("http://127.0.0.1:19090/api/v1/query", params=query, timeout=10).json()
        return {item["metric"]["job"]: int(item["value"][1]) for item in answer["data"]["result"]}

    wanted = {"vllm": 2, "haproxy": 2, "nginx": 1, "node": 1, "prometheus": 1, "alertmanager": 1, "blackbox": 1}
    wanted |= {"probe_replica": 2, "probe_gateway": 1}
    until(lambda: up() == wanted, 150)  # a part that an earlier test stopped is scraped within 15 s, probes within 60


def test_an_engine_killed_under_load(stack: Stack) -> None:
    victim = stack.part(ENGINES[0])
    restarts = victim.attrs["RestartCount"]
    kill_all = (
        "import os, signal\n"
        "for name in os.listdir('/proc'):\n"
        "    if name.isdigit() and int(name) not in (1, os.getpid()): os.kill(int(name), signal.SIGKILL)"
    )
    in_flight: list[int] = []
    with Load(URL, stack.key, stack.ca_file, "toy", workers=8, tokens=64) as load:
        load.wait_for(80, seconds=120)
        killed_at = time.monotonic()
        victim.exec_run(["python3", "-c", kill_all])
        load.wait_for(160, seconds=240)
        in_flight.append(sum(a.began < killed_at < a.ended for a in load.answers if a.kind == "stream"))
    print(f"\nkill -9 of one of two replicas under 8 workers:\n{load.table()}\nstreams in flight: {in_flight[0]}")
    assert not load.failures("whole"), load.table()
    assert len(load.failures("stream")) <= 4, load.table()  # 4 workers stream; only those in flight may break
    assert all(answer.began <= killed_at + 1 for answer in load.failures("stream")), load.table()
    until(lambda: condition(stack.part(ENGINES[0])) == "healthy", 180)
    assert stack.part(ENGINES[0]).attrs["RestartCount"] > restarts
    done = stack.script("smoke")
    assert done.code == 0, done.out


def test_bad_input_ends_with_2_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    before = stack.started()
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text(STACK_FILE.read_text().replace("replicas", "replcas"))
    flag = tmp_path / "flag.yaml"
    flag.write_text(STACK_FILE.read_text().replace("--enforce-eager", "--enforce-eagr"))
    for path, message in (
        (misspelt, "did you mean 'replicas'?"),
        (flag, "--enforce-eagr"),
        (tmp_path / "no", "cannot be read"),
    ):
        done = run_script("up", str(path))
        assert (done.code, message in done.err) == (2, True), done.err
    with socket.create_server(("127.0.0.1", 18555)):
        busy = tmp_path / "busy.yaml"
        busy.write_text(STACK_FILE.read_text().replace("19093", "18555"))
        done = run_script("up", str(busy))
        assert (done.code, "port 18555" in done.err) == (2, True), done.err
    namesake = stack.changed(tmp_path, paths={"state": str(tmp_path / "state"), "build": str(tmp_path / "build")})
    done = run_script("up", str(namesake))
    assert (done.code, "already runs here" in done.err) == (2, True), done.err
    assert stack.started() == before


def test_a_docker_engine_that_does_not_answer_is_bad_input(stack: Stack) -> None:
    done = run_script("up", str(STACK_FILE), environment={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert (done.code, "is it running?" in done.err, done.out) == (2, True, "")


def test_two_ups_at_once_cannot_happen(stack: Stack) -> None:
    with (stack.state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = stack.script("up")
    assert done.code == 1
    assert "another command" in done.err


def test_down_keeps_every_volume(stack: Stack) -> None:
    mine = {"label": f"com.docker.compose.project={PROJECT}"}
    volumes = {volume.name for volume in stack.client.volumes.list(filters=mine)}
    done = stack.script("down")
    assert done.code == 0, done.err
    assert containers(stack.client, PROJECT) == {}
    assert {volume.name for volume in stack.client.volumes.list(filters=mine)} == volumes != set()
    assert stack.key
    assert stack.script("down").out == "Nothing was running.\n"
    assert stack.script("smoke").code == 1
