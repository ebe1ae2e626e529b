"""One server as an operator treats it: looked at, deployed, again, changed, meddled with. Part of `make test`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.bed import STACK, STATE, Controller, Servers, StackHost
from provision.bed.playbooks import ROOT, good

ENGINES = ["engine-toy-0", "engine-toy-1"]
KEY = "sk-from-a-vault-0123456789"


@pytest.fixture(scope="module")
def host(servers: Servers, controller: Controller) -> Iterator[StackHost]:
    made = servers.host("main")
    good(controller.play("docker.yml", made))
    yield made
    servers.remove(made)


def flags(*more: str) -> dict[str, Any]:
    """The stack file's models with further flags."""
    (model,) = STACK["models"]
    return {"models": [{**model, "extra_args": [*model["extra_args"], *more]}]}


def everything(host: StackHost) -> str:
    """Files and units of a deploy: what a run that only looks must leave as they are."""
    return host.sh(
        "for folder in /opt/vllm-onprem /var/lib/vllm-onprem /etc/systemd/system; do"
        " [ ! -e $folder ] || find $folder -not -path '*/__pycache__*' -not -path '*/metrics/*' -type f"
        " -exec sha256sum {} +; done | sort -k2"
    )


def test_check_mode_on_a_host_without_a_stack_shows_files_and_changes_nothing(
    host: StackHost, controller: Controller
) -> None:
    before = everything(host)
    run = good(controller.play("deploy.yml", host, "--check", "--diff"))
    differences = [str(result.get("diff", "")) + str(result.get("results", "")) for _, _, result in run.tasks]
    assert any("--enforce-eager" in text for text in differences)
    assert everything(host) == before


def test_a_host_with_docker_gets_a_stack_that_serves(host: StackHost, controller: Controller) -> None:
    run = good(controller.play("deploy.yml", host, stack_api_keys={"default": KEY}))
    print(f"first deploy: {run.seconds:.0f} s, n=1")
    assert set(ENGINES) <= host.containers().keys()
    assert host.key() == KEY
    assert host.completion() == 200
    assert KEY not in run.text + str(run.tasks)


def test_the_second_run_changes_and_restarts_nothing(host: StackHost, controller: Controller) -> None:
    before = host.containers()
    run = good(controller.play("deploy.yml", host, stack_api_keys={"default": KEY}))
    print(f"second deploy: {run.seconds:.0f} s, n=1")
    assert run.changed() == []
    assert host.restarted(before) == []


def test_make_says_what_runs_on_the_host_and_what_a_deploy_would_change(
    host: StackHost, controller: Controller
) -> None:
    before = host.containers()

    def make(target: str) -> str:
        command = ["make", target, f"INVENTORY={controller.folder / 'hosts.yml'}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = make("status")
    assert all(engine in said for engine in ENGINES)
    assert "changed=0" in make("diff")
    assert host.restarted(before) == []


def test_a_changed_flag_replaces_engines_one_after_the_other_and_no_request_fails(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    before = host.containers()
    looked = good(controller.play("deploy.yml", host, "--check", "--diff", stack=flags("--seed", "7")))
    assert host.restarted(before) == []
    told = next(
        result["msg"] for _, name, result in looked.tasks if name.endswith("create, recreate, reload or remove")
    )
    assert told == dict.fromkeys(ENGINES, "recreate")
    with host.load(tmp_path) as load:
        load.wait_for(20, 60)
        run = controller.play("deploy.yml", host, stack=flags("--seed", "7"))
        load.wait_for(20, 60)
    print(f"changed flag: {run.seconds:.0f} s\n{load.table()}")
    good(run)
    assert host.restarted(before) == ENGINES
    assert load.failures("whole") + load.failures("stream") == []


def test_a_changed_alert_rule_reloads_prometheus_alone(host: StackHost, controller: Controller, tmp_path: Path) -> None:
    before, reloads = host.containers(), host.reloads()
    rules = tmp_path / "ours.yaml"
    rules.write_text("groups: [{name: ours, rules: [{alert: Ours, expr: vector(1) > 2}]}]\n")
    changed = {**flags("--seed", "7"), "observability": {"rules": [str(rules)]}}
    good(controller.play("deploy.yml", host, stack=changed))
    assert host.restarted(before) == []
    now = host.reloads()
    assert [part for part in now if now[part] != reloads[part]] == ["prometheus"]


def test_a_configuration_that_is_refused_leaves_the_stack_untouched(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    before, live = host.containers(), host.sh(f"cd {STATE}/live && find . -type f -exec sha256sum {{}} + | sort")
    rules = tmp_path / "broken.yaml"
    rules.write_text("groups: [{name: g, rules: [{alert: A, expr: 'sum(('}]}]\n")
    run = controller.play("deploy.yml", host, stack={**flags("--seed", "7"), "observability": {"rules": [str(rules)]}})
    assert run.code != 0
    assert "promtool" in run.failures()
    assert host.restarted(before) == []
    assert host.sh(f"cd {STATE}/live && find . -type f -exec sha256sum {{}} + | sort") == live
    assert host.completion() == 200
