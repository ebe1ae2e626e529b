"""Day 2 on the running stack: what a person asks of it, keeps of it, and takes out of it. It ends as it began."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import requests

from integration.conftest import ENGINES, PROJECT, ROOT, STACK_FILE, STATE, URL, Stack, run_script
from integration.load import Load
from stack import cordons
from stack.adjust import applied
from stack.day2.cordon import change
from stack.docker_host import condition, containers
from stack.inputs import Place
from stack.locks import only_one

SHARED = STATE / "state"
PROMETHEUS = "http://127.0.0.1:19090"


def oldest_sample() -> float:
    """Unix time of the oldest sample that Prometheus has of itself."""
    query = {"query": "min_over_time(timestamp(up{job='prometheus'})[1h:15s])"}
    answer = requests.get(f"{PROMETHEUS}/api/v1/query", params=query, timeout=10).json()
    return float(answer["data"]["result"][0]["value"][1])


def wait_for(url: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, url
        time.sleep(0.3)


def fingerprint(folder: Path) -> dict[str, str]:
    """Path -> mode, owner and checksum of every file below."""
    return {
        str(
            path.relative_to(folder)
        ): f"{about.st_mode:o} {about.st_uid} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (about := path.stat())
    }


def test_doctor_finds_a_good_stack_good_and_says_what_is_wrong(stack: Stack) -> None:
    done = stack.script("doctor", "--json")
    report = json.loads(done.out)
    assert (done.code, report["good"]) == (0, True), done.out
    found = {one["what"]: one["status"] for one in report["findings"]}
    assert found["stack"] == found["preflight"] == found["secrets"] == found["certificate"] == "ok"

    key = stack.state / "secrets/api-keys/second"
    part = containers(stack.client, PROJECT)["alertmanager"]
    key.chmod(0o444)
    part.stop(timeout=5)
    try:
        with only_one(stack.state):
            done = stack.script("doctor")
    finally:
        key.chmod(0o400)
        part.start()
    assert done.code == 1
    assert f"{key} has mode 0444" in done.out
    assert "problem  alertmanager: exited" in done.out
    assert f"held by process {os.getpid()}" in done.out


def test_a_diagnosis_has_everything_and_no_secret(stack: Stack, tmp_path: Path) -> None:
    part = containers(stack.client, PROJECT)["alertmanager"]
    part.stop(timeout=5)  # half broken: it says so, and the rest is there
    try:
        done = run_script(
            "diagnose", str(STACK_FILE), "--out", str(tmp_path), "--json", environment={"HF_TOKEN": "planted-hub-token"}
        )
    finally:
        part.start()
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert "Alertmanager alerts" in told["missing"]
    path = Path(told["archive"])
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        files = {name.split("/", 1)[1]: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert {"index.json", "stack.yaml", "applied/compose.yaml", "containers/engine-toy-0.log", "docker/info.json",
            "containers/nginx.json", "metrics/engine-toy-1.txt", "metrics/haproxy.txt", "metrics/nginx.txt",
            "prometheus/targets.json", "prometheus/last-hour/up.json", "state/files.txt"} <= files.keys()  # fmt: skip
    assert b"vllm:num_requests_running" in files["metrics/engine-toy-1.txt"]
    keys = [path.read_text().strip() for path in (stack.state / "secrets/api-keys").iterdir()]
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    private = [line for path in (stack.state / "tls").glob("*.key") for line in path.read_text().splitlines()[1:-1]]
    everything = b"\n".join(files.values())
    for secret in (*keys, *hashes, *private, "planted-hub-token"):
        assert secret.encode() not in everything
    assert b"engine-toy-0" in everything


def test_gc_names_nothing_that_is_needed_and_removes_what_is_not(stack: Stack) -> None:
    old = stack.state / "cache/engine-gone-0/torch"
    old.mkdir(parents=True)
    (old / "kernel").write_bytes(b"x" * 100_000)
    os.chown(old, 2000, 2000)
    partial = SHARED / "models/org--left/main.partial"
    partial.mkdir(parents=True)
    two_days = time.time() - 2 * 86400
    for path in (partial, old / "kernel", old, old.parent):
        os.utime(path, (two_days, two_days))
    dry = stack.script("collect_garbage", "--dry-run", "--days", "1", "--json")
    may_go = json.loads(dry.out)["unused"]
    assert {one["what"] for one in may_go if one["kind"] != "image"} == {str(old.parent), str(partial)}, dry.err
    in_use = {part.attrs["Config"]["Image"] for part in containers(stack.client, PROJECT).values()}
    assert not in_use & {one["what"] for one in may_go}
    assert old.exists()
    done = stack.script("collect_garbage", "--only", "cache", "--only", "model", "--days", "1")
    assert done.code == 0, done.err
    assert not old.parent.exists()
    assert not partial.exists()
    assert (SHARED / "models/toy-llama/config.json").exists()
    assert set(ENGINES) <= {path.name for path in (stack.state / "cache").iterdir()}


def test_a_backup_comes_back_under_load(stack: Stack, tmp_path: Path) -> None:
    before, first = stack.started(), oldest_sample()
    files = {name: fingerprint(stack.state / name) for name in ("secrets", "tls")}
    began = time.monotonic()
    done = stack.script("backup", "--out", str(tmp_path), "--json")
    assert done.code == 0, done.err
    print(f"\nbackup: {time.monotonic() - began:.1f} s; {[line for line in done.err.splitlines() if 'rested' in line]}")
    archive = Path(json.loads(done.out)["archive"])
    assert archive.stat().st_mode & 0o777 == 0o600
    wait_for(f"{PROMETHEUS}/-/ready")
    since = time.time()

    # what happens afterwards: a key is lost, another client comes, a certificate is lost with its key
    lost = stack.key
    (stack.state / "secrets/api-keys/default").unlink()
    assert stack.script("keys", "add", "later").code == 0
    damaged = tmp_path / "damaged.tar"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    state = fingerprint(stack.state / "secrets")
    for bad, what in ((damaged, "damaged"), (STACK_FILE, "no backup")):
        refused = stack.script("restore", str(bad), "--yes")
        assert (refused.code, what in refused.err) == (2, True), refused.err
    asked = stack.script("restore", str(archive))
    assert (asked.code, "YES=1" in asked.err) == (2, True), asked.err
    assert fingerprint(stack.state / "secrets") == state

    with Load(URL, (stack.state / "secrets/api-keys/second").read_text().strip(), stack.ca_file, "toy", workers=2,
              tokens=16, pause=0.1) as load:  # fmt: skip
        load.wait_for(5, seconds=60)
        began = time.monotonic()
        done = stack.script("restore", str(archive), "--yes", "--json")
        print(f"restore: {time.monotonic() - began:.1f} s")
        load.wait_for(5, seconds=60)
    assert done.code == 0, done.err
    print(load.table())
    assert not load.failures("whole") + load.failures("stream"), load.table()
    assert {name: fingerprint(stack.state / name) for name in files} == files
    assert stack.key == lost
    models = requests.get(
        f"{URL}/v1/models", headers={"Authorization": f"Bearer {lost}"}, verify=str(stack.ca_file), timeout=10
    )
    assert models.status_code == 200
    wait_for(f"{PROMETHEUS}/-/ready")
    assert oldest_sample() == pytest.approx(first, abs=16)
    assert first < since
    after = stack.started()
    assert {name for name in after if after[name] != before[name]} == {"prometheus", "alertmanager"}
    assert "No difference" in stack.script("diff").out
    for put_aside in stack.state.glob("replaced-*"):
        shutil.rmtree(put_aside)  # other tests look for secrets where none should be


def test_a_replica_that_is_cordoned_is_gone_and_comes_back(stack: Stack) -> None:
    """The engines here have no GPU: the change is asked for by the replica's name, as a GPU's would be."""
    place, before = Place(PROJECT, stack.state), stack.started()
    refused = stack.script("cordon", "GPU-00000000")
    assert (refused.code, "runs on the CPU" in refused.err) == (2, True), refused.err
    plan = applied(place.live)
    # little of it: a worker spins for a second after each request, and the replica that starts wants the cores
    with Load(URL, stack.key, stack.ca_file, "toy", workers=2, tokens=16, pause=4) as load:
        load.wait_for(3, seconds=60)
        out = change(place, plan, cordons.without_engines(plan, {"engine-toy-1"}), ROOT, stack.client, 30)
        load.wait_for(3, seconds=60)
        now = containers(stack.client, PROJECT)
        assert (out.stopped, out.left) == (("engine-toy-1",), 0)
        assert now.keys() == before.keys() - {"engine-toy-1"}
        assert stack.script("status").out.count("cordoned, not run: engine-toy-1") == 1
        assert stack.script("smoke").code == 0
        plan = applied(place.live)
        began = time.monotonic()
        back = change(place, plan, cordons.without_engines(plan, ()), ROOT, stack.client)
        print(f"\nuncordon: {time.monotonic() - began:.1f} s")
    assert back.started == ("engine-toy-1",)
    assert not load.failures("whole") + load.failures("stream"), load.table()
    print(load.table())
    after = stack.started()
    assert {name for name in after if after[name] != before[name]} == {"engine-toy-1"}
    assert condition(containers(stack.client, PROJECT)["engine-toy-1"]) == "healthy"
    assert "No difference" in stack.script("diff").out


def test_clean_refuses_without_a_person(stack: Stack) -> None:
    before = stack.started()
    done = stack.script("clean")
    assert (done.code, "YES=1" in done.err) == (2, True), done.err
    # on a terminal it wants the stack's name
    code = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    command = [sys.executable, "-c", code, sys.executable, str(ROOT / "scripts/clean.py"), str(STACK_FILE)]
    asked = subprocess.run(command, input="yes\n", capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert asked.returncode == 2, asked.stdout
    assert "not confirmed" in asked.stdout
    assert stack.started() == before
