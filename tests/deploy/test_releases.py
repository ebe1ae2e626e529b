"""Releases on a server: gone back to under load, listed, compared, refused where something is gone, the oldest removed.

Long: make test-hosts-matrix.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from deploy.bed import STATE, Controller, StackHost, flags
from provision.bed.playbooks import Run, good
from waiting import until

MODELS = f"{STATE.rsplit('/', 2)[0]}/models"
# Answers that clients of the load have before and after each change.
REQUESTS, SECONDS = 250, 900
ENGINES = ["engine-toy-0", "engine-toy-1"]


def deploy(controller: Controller, host: StackHost, seed: int) -> None:
    """A release of its own: the same stack with another flag of its engines."""
    good(controller.play("deploy.yml", host, stack=seeded(seed)))


def seeded(seed: int) -> dict[str, Any]:
    return flags("--seed", str(seed))


def seed_of(host: StackHost) -> str:
    return host.sh(f"grep -A1 -- --seed {STATE}/live/compose.yaml")


def releases(host: StackHost, script: str, *arguments: str) -> dict[str, Any]:
    """What a program of the host's current release says as JSON."""
    current = "/opt/vllm-onprem/current"
    command = f"{current}/.venv/bin/python {current}/scripts/{script}.py {current}/stack.yaml --json"
    told = " ".join([command, *arguments, "2>/tmp/progress || { cat /tmp/progress; exit 1; }"])
    found: dict[str, Any] = json.loads(host.sh(told))
    return found


def ids(host: StackHost) -> list[str]:
    """Of the releases that a host keeps, the last one first."""
    return [each["id"] for each in releases(host, "releases")["releases"]]


def test_a_rollback_needs_no_stack_file_and_fails_no_request(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    deploy(controller, host, 11)
    deploy(controller, host, 12)
    new, old = ids(host)[:2]
    assert releases(host, "releases")["running"] == new
    before = host.containers()
    nothing: dict[str, Any] = {"stack_file": "/nowhere/stack.yaml", "stack_build": "/nowhere"}
    with host.load(tmp_path) as load:
        load.wait_for(REQUESTS, SECONDS)
        run = controller.play("rollback.yml", host, **nothing)
        load.wait_for(REQUESTS, SECONDS)
    print(f"rollback: {run.seconds:.0f} s, n=1\n{load.table()}")
    good(run)
    assert host.restarted(before) == ENGINES
    assert load.failures("whole") + load.failures("stream") == []
    assert "11" in seed_of(host)
    found = releases(host, "releases")["releases"]
    assert (found[0]["id"], found[0]["running"], found[0]["how"]) == (old, True, "rollback")

    changed = releases(host, "history")
    assert (changed["from"]["id"], changed["to"]["id"]) == (new, old)
    assert changed["effects"] == dict.fromkeys(ENGINES, "recreate")
    assert {"stack.yaml", "compose.yaml"} <= {each["path"] for each in changed["files"]}

    good(controller.play("rollback.yml", host, **nothing))
    assert releases(host, "releases")["running"] == new, "back to where the first rollback came from"


def test_a_rollback_on_the_host_needs_no_controller(host: StackHost, controller: Controller) -> None:
    deploy(controller, host, 13)
    deploy(controller, host, 14)
    old = ids(host)[1]
    told = releases(host, "rollback", f"--to={old[:8]}")
    assert (told["release"], told["became_current"]) == (old, True)
    assert host.completion() == 200


def test_after_a_deploy_that_was_killed_a_rollback_goes_to_what_ran_before_it(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    deploy(controller, host, 15)
    ran = releases(host, "releases")["running"]
    cut: list[Run] = []
    thread = threading.Thread(target=lambda: cut.append(controller.play("deploy.yml", host, stack=seeded(16))))
    with host.load(tmp_path) as load:
        load.wait_for(10, 60)
        thread.start()
        until(lambda: "16" in seed_of(host), 300, "half applied")
        host.sh("pkill -9 -f 'scripts/[a]ctivate.py'")  # while its engines are replaced; put_back has no chance
        thread.join()
        assert cut[0].code != 0
        run = controller.play("rollback.yml", host)
        load.wait_for(10, 60)
    print(f"rollback of a deploy that was killed: {run.seconds:.0f} s, n=1\n{load.table()}")
    good(run)
    assert load.failures("whole") + load.failures("stream") == []
    now = releases(host, "releases")
    assert (now["running"], now["cut_off"]) == (ran, None)
    assert "15" in seed_of(host)


def test_a_rollback_to_what_is_not_there_is_refused_and_nothing_is_touched(
    host: StackHost, controller: Controller
) -> None:
    deploy(controller, host, 17)
    before = host.containers()
    run = controller.play("rollback.yml", host, "-e", "rollback_to=0000")
    assert run.code != 0
    assert "no release of this id" in run.failures()
    old = ids(host)[1]
    host.sh(f"mv {MODELS} /var/lib/vllm-onprem/aside")
    try:
        run = controller.play("rollback.yml", host)
    finally:
        host.sh(f"mv /var/lib/vllm-onprem/aside {MODELS}")
    assert run.code != 0
    assert f"release {old}" in run.failures()
    assert "is not on this host any more" in run.failures()
    assert host.restarted(before) == []


def test_the_last_releases_stay_and_garbage_collection_leaves_what_they_need(
    host: StackHost, controller: Controller
) -> None:
    seen = ids(host)
    for availability in (99.9, 99.8, 99.7):  # which no engine is replaced for
        stack = {"observability": {"slo": {"availability": availability}}}
        good(controller.play("deploy.yml", host, stack=stack, stack_keep_releases=2))
        seen += ids(host)
    kept = ids(host)
    assert len(kept) == 2
    there = set(host.sh("ls /opt/vllm-onprem/releases").split())
    # one that was sent and never proven stays for a day
    assert there & set(seen) == set(kept)
    releases(host, "collect_garbage", "--hosts=/opt/vllm-onprem/current/hosts.yaml", "--days=0")
    told = releases(host, "rollback", "--dry-run")
    assert told["release"] == kept[1]
