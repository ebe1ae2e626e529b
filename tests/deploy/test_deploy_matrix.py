"""The hard cases, on servers of their own: looked at, left by a cut run, refused, rebooted, full, a wrong password.

Long: make test-hosts-matrix.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.bed import STATE, Controller, StackHost, flags
from provision.bed.playbooks import ANSIBLE, ROOT, good

KEY = "sk-from-a-vault-0123456789"
OTHER = {"served_model_name": "other", "replicas": 1}


def models(*arguments: str, more: bool = False) -> dict[str, Any]:
    other = flags(*arguments, **OTHER)["models"] if more else []
    return {"models": flags(*arguments)["models"] + other}


def deployed(controller: Controller, host: StackHost, **options: Any) -> None:
    good(controller.play("deploy.yml", host, **options))


def everything(host: StackHost) -> str:
    """Files and units of a deploy: what a run that only looks must leave as they are."""
    return host.sh(
        "for folder in /opt/vllm-onprem /var/lib/vllm-onprem /etc/systemd/system; do"
        " [ ! -e $folder ] || find $folder -not -path '*/__pycache__*' -not -path '*/metrics/*' -type f"
        " -exec sha256sum {} +; done | sort -k2"
    )


def test_a_look_at_a_host_without_a_stack_shows_files_and_changes_nothing(
    host: StackHost, controller: Controller
) -> None:
    before = everything(host)
    controller.write(host)
    said = controller.make("diff")
    assert "--enforce-eager" in said
    assert "engine-toy-0: create" in said
    assert everything(host) == before


def test_a_look_at_a_changed_stack_says_what_would_be_replaced(host: StackHost, controller: Controller) -> None:
    deployed(controller, host)
    before = host.containers()
    controller.write(host, stack=models("--seed", "9"))
    said = controller.make("diff")
    assert "--seed" in said
    assert all(f"engine-toy-{number}: recreate" in said for number in range(2))
    assert host.restarted(before) == []


# --- the controller dies; the play is run again


@pytest.mark.parametrize(
    ("moment", "flag"),
    [
        ("Put it in its place", "1"),
        ("Send the files that differ, and remove those of no use any more", "2"),
        ("Apply the release and prove it", "3"),
    ],
)
def test_a_controller_that_is_killed_is_run_again(
    host: StackHost, controller: Controller, tmp_path: Path, moment: str, flag: str
) -> None:
    if not host.containers():
        deployed(controller, host)
    before = host.containers()
    with host.load(tmp_path) as load:
        load.wait_for(10, 60)
        cut = controller.play("deploy.yml", host, stack=models("--seed", flag), kill_at=moment)
        assert cut.code == -9
        again = controller.play("deploy.yml", host, stack=models("--seed", flag))
        load.wait_for(10, 60)
    print(f"controller killed at {moment!r}, run again: {again.seconds:.0f} s\n{load.table()}")
    good(again)
    assert host.restarted(before) == ["engine-toy-0", "engine-toy-1"]
    assert load.failures("whole") + load.failures("stream") == []
    assert flag in host.sh(f"grep -A1 -- --seed {STATE}/live/compose.yaml")
    assert controller.play("deploy.yml", host, stack=models("--seed", flag)).changed() == []


def test_a_removed_model_is_gone_and_the_other_not_touched(host: StackHost, controller: Controller) -> None:
    deployed(controller, host, stack=models(more=True))
    before = host.containers()
    assert "engine-other-0" in before
    deployed(controller, host, stack=models())
    assert "engine-other-0" not in host.containers()
    assert not set(host.restarted(before)) & {"engine-toy-0", "engine-toy-1"}
    assert host.completion() == 200


def test_a_changed_alert_rule_reloads_prometheus_alone(host: StackHost, controller: Controller, tmp_path: Path) -> None:
    deployed(controller, host, stack=models())
    before, reloads = host.containers(), host.reloads()
    rules = tmp_path / "ours.yaml"
    rules.write_text("groups: [{name: ours, rules: [{alert: Ours, expr: vector(1) > 2}]}]\n")
    changed = {**models(), "observability": {"rules": [str(rules)]}}
    good(controller.play("deploy.yml", host, stack=changed))
    assert host.restarted(before) == []
    now = host.reloads()
    assert [part for part in now if now[part] != reloads[part]] == ["prometheus"]


def test_a_configuration_that_is_refused_leaves_the_stack_untouched(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    deployed(controller, host, stack=models())
    before, live = host.containers(), host.sh(f"cd {STATE}/live && find . -type f -exec sha256sum {{}} + | sort")
    rules = tmp_path / "broken.yaml"
    rules.write_text("groups: [{name: g, rules: [{alert: A, expr: 'sum(('}]}]\n")
    run = controller.play("deploy.yml", host, stack={**models(), "observability": {"rules": [str(rules)]}})
    assert run.code != 0
    assert "promtool" in run.failures()
    assert host.restarted(before) == []
    assert host.sh(f"cd {STATE}/live && find . -type f -exec sha256sum {{}} + | sort") == live
    assert host.completion() == 200


def test_a_host_comes_back_from_a_reboot_and_needs_no_deploy(host: StackHost, controller: Controller) -> None:
    deployed(controller, host, stack=models())
    before = host.containers()
    host.sh("docker stop $(docker ps --quiet --filter name=prometheus)")  # not running when it goes down
    host.boot()
    host.sh("for _ in $(seq 120); do systemctl is-active --quiet vllm-onprem-stack && break; sleep 1; done")
    smoke = "/opt/vllm-onprem/current/scripts/smoke.py /opt/vllm-onprem/current/stack.yaml"
    host.sh(
        f"for _ in $(seq 40); do /opt/vllm-onprem/current/.venv/bin/python {smoke} && exit 0; sleep 5; done; exit 1"
    )
    assert set(host.containers()) == set(before)
    run = good(controller.play("deploy.yml", host, stack=models()))
    assert run.changed() == []


def test_the_hosts_own_checks_pass(host: StackHost, controller: Controller) -> None:
    deployed(controller, host, stack=models())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/hosts/test_stack.py", "--hosts=ansible://gpu_nodes"),
            f"--ansible-inventory={controller.inventory}",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


def test_a_full_disk_is_refused_before_the_first_change(host: StackHost, controller: Controller) -> None:
    deployed(controller, host, stack=models())
    before = host.containers()
    run = controller.play("deploy.yml", host, stack=models("--seed", "9"), stack_free_mib=10**9)
    assert run.code != 0
    assert "MiB are needed" in run.failures()
    assert run.changed() == []
    assert host.restarted(before) == []


def test_a_disk_that_fills_up_leaves_the_stack_as_it_was(host: StackHost, controller: Controller) -> None:
    deployed(controller, host, stack=models())
    before = host.containers()
    host.sh(f"mkdir -p {STATE}/shipped && mount -t tmpfs -o size=8k full {STATE}/shipped")
    try:
        run = controller.play("deploy.yml", host, stack=models("--seed", "9"))
        assert run.code != 0
        assert host.restarted(before) == []
        assert host.completion() == 200
    finally:
        host.sh(f"umount {STATE}/shipped")
    deployed(controller, host, stack=models("--seed", "9"))


# --- secrets


def encrypted(folder: Path) -> tuple[Path, Path]:
    """A file with a vault's password, and the vault, which holds the API key."""
    password, vault = folder / "password", folder / "vault.yml"
    password.write_text("right\n")
    vault.write_text(yaml.safe_dump({"stack_api_keys": {"default": KEY}}))
    ansible_vault = str(ROOT / ".venv/bin/ansible-vault")
    subprocess.run([ansible_vault, "encrypt", "--vault-password-file", str(password), str(vault)], check=True)
    return password, vault


def test_secrets_of_a_vault_are_nowhere_but_in_their_files(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    password, vault = encrypted(tmp_path)
    given = ["-e", f"@{vault}", "--vault-password-file", str(password)]
    seen = "while true; do ps -eo args | grep -F sk-from- | grep -v grep; sleep 0.05; done >/tmp/seen"
    host.run("sh", "-c", f"({seen}) >/dev/null 2>&1 & echo $! >/tmp/watcher")
    looked = controller.play("deploy.yml", host, "-vvv", "--check", "--diff", *given, stack=models())
    run = controller.play("deploy.yml", host, "-vvv", "--diff", *given, stack=models())
    host.sh("kill $(cat /tmp/watcher)")
    assert (looked.code, run.code) == (0, 0), run.failures() + run.text
    assert host.key() == KEY
    assert host.completion() == 200
    assert KEY not in looked.text + str(looked.tasks) + run.text + str(run.tasks)
    assert host.read("/tmp/seen") == ""
    assert host.run("sh", "-c", f"journalctl --no-pager | grep -F {KEY}").out == ""
    assert host.sh(f"grep -rlF {KEY} /opt /etc /var/lib/vllm-onprem /root /tmp || true").split() == [
        f"{STATE}/secrets/api-keys/default"
    ]
    assert not list(Path(controller.folder).rglob("*.fact_cache"))
    kept = subprocess.run(["grep", "-rlF", KEY, str(controller.folder)], capture_output=True, text=True, check=False)
    assert kept.stdout == ""


def test_a_wrong_vault_password_ends_the_run_before_a_host_is_asked(
    host: StackHost, controller: Controller, tmp_path: Path
) -> None:
    password, vault = encrypted(tmp_path)
    password.write_text("wrong\n")
    before = host.containers()
    run = controller.play("deploy.yml", host, "-e", f"@{vault}", "--vault-password-file", str(password))
    assert run.code != 0
    assert "Decryption failed" in run.text
    assert run.tasks == []
    assert host.restarted(before) == []
