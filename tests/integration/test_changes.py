"""What `make up` does to a stack that runs: changed, interrupted, refused, put back."""

from __future__ import annotations

import datetime
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import requests
import yaml

from integration.conftest import ENGINES, PROJECT, ROOT, STACK_FILE, URL, Stack, run_script
from integration.load import Load
from stack.images.archive import Archived, ArchiveList, write
from stack.images.choice import built_references
from stack.images.lock import LOCK
from stack.images.pins import load_pins
from stack.observe import silences
from waiting import until
from watching import Watched

GATEWAY = {"listen": "127.0.0.1", "https_port": 18443, "api_keys": ["default", "second"]}


def model(**keys: object) -> dict[str, Any]:
    """The stack file's model with some keys replaced."""
    (found,) = yaml.safe_load(STACK_FILE.read_text())["models"]
    return {**found, **keys}


def test_a_gateway_setting_reloads_nginx_and_restarts_nothing(stack: Stack, tmp_path: Path) -> None:
    changed = stack.changed(tmp_path, gateway=GATEWAY | {"max_body_size_mib": 1})
    before = stack.started()
    effects = json.loads(run_script("diff", str(changed), "--json").out)["effects"]
    assert effects == {"nginx": "reload"}
    done = run_script("up", str(changed))
    assert (done.code, done.out.splitlines()[0]) == (0, "reloaded nginx"), done.err
    assert stack.started() == before
    assert stack.post("/v1/completions", {"model": "toy", "prompt": "x" * 2_000_000}).status_code == 413
    assert stack.script("up").code == 0
    assert stack.started() == before


def test_reloads_under_load_fail_no_request(stack: Stack, tmp_path: Path) -> None:
    changed = stack.changed(tmp_path, gateway=GATEWAY | {"request_timeout": 599})
    before = stack.started()
    with Load(URL, stack.key, stack.ca_file, "toy", workers=4, tokens=32, pause=0.1) as load:
        load.wait_for(40, seconds=120)
        for path in (changed, STACK_FILE):
            done = run_script("up", str(path))
            parts = {"reloaded haproxy", "reloaded haproxy-standby", "reloaded nginx"}
            assert parts <= set(done.out.splitlines()), done.err
        load.wait_for(40, seconds=120)
    print(f"\ntwo reloads each of nginx and HAProxy under 4 workers:\n{load.table()}")
    assert not load.failures("whole") + load.failures("stream"), load.table()
    assert stack.started() == before


def test_a_part_that_was_reloaded_is_started_again_when_it_dies(stack: Stack) -> None:
    assert stack.script("keys", "add", "reloads").code == 0  # nginx
    assert stack.script("keys", "revoke", "reloads").code == 0
    assert stack.script("drain", ENGINES[0]).code == 0  # both HAProxy
    assert stack.script("drain", ENGINES[0], "--undo").code == 0
    for service in ("nginx", "haproxy", "haproxy-standby"):
        old = int(stack.part(service).attrs["State"]["Pid"])
        os.kill(old, signal.SIGKILL)
        until(lambda name=service, pid=old: stack.part(name).attrs["State"]["Pid"] not in (0, pid), 20)  # type: ignore[misc]
    until(lambda: stack.script("smoke").code == 0, 60)


def test_an_up_that_was_killed_before_its_reload_is_finished_by_the_next(stack: Stack, tmp_path: Path) -> None:
    changed = stack.changed(tmp_path, gateway=GATEWAY | {"max_body_size_mib": 1})
    rendered = stack.state / "live/nginx/conf.d/gateway.conf"
    old = rendered.read_bytes()
    command = [sys.executable, str(ROOT / "scripts/up.py"), str(changed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while rendered.read_bytes() == old:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()
    done = run_script("up", str(changed))
    assert (done.code, "reloaded nginx" in done.out) == (0, True), done.err
    assert stack.post("/v1/completions", {"model": "toy", "prompt": "x" * 2_000_000}).status_code == 413
    assert stack.script("up").code == 0


def test_an_interrupted_up_says_what_runs(stack: Stack, tmp_path: Path) -> None:
    changed = stack.changed(tmp_path, gateway=GATEWAY | {"max_body_size_mib": 1})
    rendered = stack.state / "live/nginx/conf.d/gateway.conf"
    old = rendered.read_bytes()
    command = [sys.executable, str(ROOT / "scripts/up.py"), str(changed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while rendered.read_bytes() == old:
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.005)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "The previous stack was put back and is running." in said
    assert rendered.read_bytes() == old
    assert stack.post("/v1/completions", {"model": "toy", "prompt": "x" * 2_000_000}).status_code == 400


def test_a_changed_engine_flag_replaces_one_replica_after_the_other(stack: Stack, tmp_path: Path) -> None:
    before = stack.started()
    with Load(URL, stack.key, stack.ca_file, "toy", workers=4, tokens=16, pause=0.25) as load:
        load.wait_for(10, seconds=60)
        done = run_script("up", str(stack.changed(tmp_path, models=[model(max_num_seqs=128)])))
        assert done.code == 0, done.err
        load.wait_for(20, seconds=60)
    print(f"\nboth replicas replaced under load:\n{load.table()}")
    assert len(load.answers) >= 500
    assert not load.failures("whole") + load.failures("stream"), load.table()
    after = stack.started()
    assert {name for name in before if before[name] != after[name]} == set(ENGINES)
    _silenced_for_their_absence_alone(stack, ENGINES)


def _silenced_for_their_absence_alone(stack: Stack, engines: tuple[str, ...]) -> None:
    watched = Watched(PROJECT, stack.state, stack.client)
    url = f"http://127.0.0.1:{watched.ports['alertmanager']}/api/v2/silences"
    found = [each for each in requests.get(url, timeout=10).json() if each["comment"].endswith("replaced by make up")]
    made = {frozenset((each["name"], each["value"]) for each in silence["matchers"]) for silence in found}
    common = {("alertname", "|".join(silences.CAUSED)), ("host", watched.plan.host)}
    assert made == {frozenset({*common, ("server", name)}) for name in engines}
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=silences.LINGER_SECONDS)
    assert all(datetime.datetime.fromisoformat(silence["endsAt"]) <= soon for silence in found)


def test_one_replica_is_not_replaced_without_a_word(stack: Stack, tmp_path: Path) -> None:
    before = stack.started()
    done = run_script("up", str(stack.changed(tmp_path, models=[model(replicas=1, max_model_len=1024)])))
    assert (done.code, "ALLOW_DOWNTIME=1" in done.err) == (2, True), done.err
    assert stack.started() == before


def test_a_live_tree_that_was_deleted_is_made_again(stack: Stack) -> None:
    before = stack.started()
    shutil.rmtree(stack.state / "live")
    assert stack.script("status").code == 2
    done = stack.script("up")
    assert done.code == 0, done.err
    after = stack.started()
    assert {name for name in before if after[name] == before[name]} == set(), "all of them held the deleted folder"


def test_a_failed_up_leaves_the_running_stack_as_it_was(stack: Stack, tmp_path: Path) -> None:
    # vLLM's parser accepts the flags, and the engine of the added model cannot start
    broken = tmp_path / "broken-model"
    _copy_with_unknown_architecture(stack, broken)
    models = [model(), model(served_model_name="broken", source={"path": str(broken)}, replicas=1)]
    before = stack.started()
    done = run_script("up", str(stack.changed(tmp_path, models=models)))
    assert done.code == 1
    assert "engine-broken-0 ended 2 times while starting" in done.err
    assert "NoSuchForCausalLM" in done.err, "the engine's own last words"
    assert done.err.rstrip().endswith("The previous stack was put back and is running.")
    assert stack.started() == before
    assert stack.script("smoke").code == 0
    assert stack.script("diff").out.startswith("No difference"), "the applied tree is the old one again"


def test_images_that_cannot_be_had_leave_the_running_stack_as_it_was(stack: Stack, tmp_path: Path) -> None:
    before = stack.started()
    lock = (ROOT / LOCK).read_bytes()
    archive = tmp_path / "images.tar"
    names = built_references(ROOT, load_pins(ROOT), "cpu")
    constructed = {
        role: Archived(id=f"sha256:{number:064x}", name=name, digest=None, size=1)
        for number, (role, name) in enumerate(names.items())
    }
    write(archive, ArchiveList(built=True, images=constructed), _saved(), lambda _: None)
    archive.write_bytes(archive.read_bytes()[:-1024])
    for images, code, message in (
        ({"source": "registry", "mirror": "127.0.0.1:1/mirror"}, 1, "connection refused"),
        ({"source": "archive", "archive": str(archive)}, 2, "Nothing was loaded"),
        ({"source": "archive", "archive": str(tmp_path / "no.tar")}, 2, "copy it to this host"),
    ):
        done = run_script("up", str(stack.changed(tmp_path, images=images)))
        assert (done.code, message in done.err) == (code, True), done.err
    assert stack.started() == before
    assert (ROOT / LOCK).read_bytes() == lock
    assert stack.script("diff").out.startswith("No difference"), "the applied tree is the old one"


def _saved() -> list[bytes]:
    """What an engine streams when it saves nothing."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    return [buffer.getvalue()]


def _copy_with_unknown_architecture(stack: Stack, target: Path) -> None:
    shutil.copytree(stack.state.parents[1] / "models/toy-llama", target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchForCausalLM"]}))
    for path in (target, *target.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o755)  # the engine reads it as another user
