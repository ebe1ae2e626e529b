"""A server that deploys to itself: timer, signature, metrics; with a stand-in for the project's playbook, then with
the project itself. Long: make test-hosts-matrix.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from deploy.bed import STACK, Controller, StackHost, flags
from deploy.bundle import controller_wheels
from provision.bed.playbooks import ROOT, good

REPOSITORY, PROJECT = "/root/repository", "/root/project"
METRICS = "/var/lib/node_exporter/textfile/vllm_onprem_pull.prom"
# In the place of the project's: says for whom it would be played.
SETUP = """#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "%s"; echo "$*" >>/root/played\\n' "$(cat host)" >.venv/bin/ansible-playbook
chmod +x .venv/bin/ansible-playbook
"""


@pytest.fixture(scope="module", autouse=True)
def _deployed(host: StackHost, controller: Controller) -> None:
    good(controller.play("deploy.yml", host))


@pytest.fixture(scope="module")
def key(host: StackHost, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A public key; the private one is on the host, for the commits there."""
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", str(path)], check=True)
    host.write("/root/key", path.read_text())
    host.sh("chmod 600 /root/key")
    return path.with_suffix(".pub").read_text().strip()


def pull_mode(controller: Controller, host: StackHost, **variables: Any) -> list[str]:
    run = good(controller.play("pull_deploy.yml", host, **variables))
    return run.changed()


def wanted(host: StackHost, key: str, repository: str, inventory: str) -> dict[str, Any]:
    """Variables of a host that pulls; each repository has a state of its own."""
    return {
        "pull_deploy_enabled": True, "pull_deploy_url": repository, "pull_deploy_branch": "main",
        "pull_deploy_allowed_signers": [f'alice@example.org namespaces="git" {key}'],
        "pull_deploy_host": host.name, "pull_deploy_inventory": inventory, "pull_deploy_interval": 86400,
        "pull_deploy_state": f"/var/lib/vllm-onprem/pull-of{repository.replace('/', '-')}",
    }  # fmt: skip


def commit(host: StackHost, repository: str, stack: str, *flags: str) -> None:
    """In a repository on the host, which need not be reached over a network for this."""
    host.write(f"{repository}/stack.yaml", stack)
    signing = "-c gpg.format=ssh -c user.signingKey=/root/key -c user.name=a -c user.email=a@example.org"
    host.sh(f"cd {repository} && git add . && git {signing} commit --quiet -m x {' '.join(flags)}")


def pull(host: StackHost) -> tuple[bool, str]:
    """(whether it ended well, what the metrics say of it)"""
    ended_well = host.run("systemctl", "start", "vllm-onprem-pull").code == 0
    return ended_well, host.sh(f"grep ' 1$' {METRICS} | grep result")


def test_a_host_pulls_what_is_signed_and_nothing_else(host: StackHost, controller: Controller, key: str) -> None:
    variables = wanted(host, key, REPOSITORY, "hosts.yml")
    pull_mode(controller, host, **variables)
    assert pull_mode(controller, host, **variables) == []
    assert host.sh("systemctl is-enabled vllm-onprem-pull.timer").strip() == "enabled"
    host.sh(f"git init --quiet --initial-branch=main {REPOSITORY} && mkdir {REPOSITORY}/scripts")
    host.write(f"{REPOSITORY}/scripts/setup.sh", SETUP)
    host.write(f"{REPOSITORY}/host", host.name)
    host.sh(f"chmod +x {REPOSITORY}/scripts/setup.sh")

    commit(host, REPOSITORY, "one")
    ended_well, said = pull(host)
    assert (ended_well, 'result="refused"' in said) == (False, True)
    assert host.run("test", "-e", "/root/played").code != 0
    commit(host, REPOSITORY, "two", "-S")
    ended_well, said = pull(host)
    assert (ended_well, 'result="applied"' in said) == (True, True), host.sh("journalctl -u vllm-onprem-pull")
    ended_well, said = pull(host)
    assert (ended_well, 'result="unchanged"' in said) == (True, True)
    assert len(host.read("/root/played").splitlines()) == 2  # asked for its hosts, then played


def tracked() -> bytes:
    """What git has of this checkout, as a tar archive."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    command = ["tar", "--create", "--null", "--files-from=-"]
    return subprocess.run(command, cwd=ROOT, input=names, check=True, capture_output=True).stdout


def test_a_host_deploys_what_a_signed_commit_of_this_project_says(
    host: StackHost, controller: Controller, key: str
) -> None:
    before = host.containers()
    own_python = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"/srv/bundle/{controller_wheels().name}"}
    variables = wanted(host, key, PROJECT, "ours/hosts.yml")
    pull_mode(controller, host, **variables, pull_deploy_environment=own_python)
    host.sh(f"git init --quiet --initial-branch=main {PROJECT}")
    host.container.put_archive(PROJECT, tracked())
    values = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "stack_file": "{{ playbook_dir }}/../../stack.yaml",
        "stack_wheels": "/srv/bundle/wheels",
    }
    inventory = {"gpu_nodes": {"hosts": {host.name: None}, "vars": values}}
    host.write(f"{PROJECT}/ours/hosts.yml", yaml.safe_dump(inventory))
    stack = yaml.safe_dump({**STACK, **flags("--seed", "7")})

    commit(host, PROJECT, stack)
    ended_well, said = pull(host)
    assert (ended_well, 'result="refused"' in said, host.restarted(before)) == (False, True, [])
    commit(host, PROJECT, stack, "--amend", "-S")
    ended_well, said = pull(host)
    assert (ended_well, 'result="applied"' in said) == (True, True), host.sh("journalctl -u vllm-onprem-pull")
    assert host.restarted(before) == ["engine-toy-0", "engine-toy-1"]
    assert host.completion() == 200
    record = "/opt/vllm-onprem/current/.venv/bin/python /opt/vllm-onprem/current/scripts/releases.py"
    running = json.loads(host.sh(f"{record} /opt/vllm-onprem/current/stack.yaml --json"))["releases"][0]
    assert running["running"]
    assert "signed by alice@example.org" in str(running)


def test_a_host_that_shall_not_pull_any_more_has_no_timer_and_no_metric(
    host: StackHost, controller: Controller
) -> None:
    pull_mode(controller, host)
    assert host.run("systemctl", "is-active", "vllm-onprem-pull.timer").code != 0
    for path in (METRICS, "/etc/vllm-onprem/pull.yaml", "/etc/systemd/system/vllm-onprem-pull.service"):
        assert host.run("test", "-e", path).code != 0
    assert pull_mode(controller, host) == []
