"""One server as an operator treats it: deployed, again, changed under load. Part of `make test`."""

from __future__ import annotations

from pathlib import Path

from deploy.bed import Controller, StackHost, flags
from provision.bed.playbooks import good

ENGINES = ["engine-toy-0", "engine-toy-1"]
KEY = "sk-from-a-vault-0123456789"


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


def test_make_says_what_runs_on_the_host(host: StackHost, controller: Controller) -> None:
    said = controller.make("status")
    assert all(engine in said for engine in host.containers())


def test_a_changed_flag_replaces_engines_one_after_the_other_and_no_request_fails(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    before = host.containers()
    with host.load(tmp_path, workers=2) as load:
        load.wait_for(20, 60)
        run = controller.play("deploy.yml", host, stack=flags("--seed", "7"))
        load.wait_for(20, 60)
    print(f"changed flag: {run.seconds:.0f} s\n{load.table()}")
    good(run)
    assert host.restarted(before) == ENGINES
    assert load.failures("whole") + load.failures("stream") == []
