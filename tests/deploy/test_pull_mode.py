"""A server that deploys to itself: timer, signature, metrics.

The playbook is a stand-in for the project's; the way from the timer to it is real.
Long: make test-hosts-matrix. Written, not run yet: README.md.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.bed import Controller, Servers, StackHost
from provision.bed.playbooks import good

REPOSITORY = "/root/repository"
METRICS = "/var/lib/node_exporter/textfile/vllm_onprem_pull.prom"
# In the place of the project's: says for whom it would be played.
SETUP = """#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "%s"; echo "$*" >>/root/played\\n' "$(cat host)" >.venv/bin/ansible-playbook
chmod +x .venv/bin/ansible-playbook
"""


@pytest.fixture(scope="module")
def host(servers: Servers, controller: Controller) -> Iterator[StackHost]:
    made = servers.host("pull")
    for playbook in ("docker.yml", "deploy.yml"):
        good(controller.play(playbook, made))
    yield made
    servers.remove(made)


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


def commit(host: StackHost, text: str, *flags: str) -> None:
    """In the repository on the host, which need not be reached over a network for this."""
    host.write(f"{REPOSITORY}/stack.yaml", text)
    signing = "-c gpg.format=ssh -c user.signingKey=/root/key -c user.name=a -c user.email=a@example.org"
    host.sh(f"cd {REPOSITORY} && git add . && git {signing} commit --quiet -m x {' '.join(flags)}")


def pull(host: StackHost) -> tuple[bool, str]:
    """(whether it ended well, what the metrics say of it)"""
    ended_well = host.run("systemctl", "start", "vllm-onprem-pull").code == 0
    return ended_well, host.sh(f"grep ' 1$' {METRICS} | grep result")


def test_a_host_pulls_what_is_signed_and_nothing_else(host: StackHost, controller: Controller, key: str) -> None:
    wanted = {
        "pull_deploy_enabled": True, "pull_deploy_url": REPOSITORY, "pull_deploy_branch": "main",
        "pull_deploy_allowed_signers": [f'alice@example.org namespaces="git" {key}'],
        "pull_deploy_host": host.name, "pull_deploy_inventory": "hosts.yml", "pull_deploy_interval": 86400,
    }  # fmt: skip
    pull_mode(controller, host, **wanted)
    assert pull_mode(controller, host, **wanted) == []
    assert host.sh("systemctl is-enabled vllm-onprem-pull.timer").strip() == "enabled"
    host.sh(f"git init --quiet --initial-branch=main {REPOSITORY} && mkdir {REPOSITORY}/scripts")
    host.write(f"{REPOSITORY}/scripts/setup.sh", SETUP)
    host.write(f"{REPOSITORY}/host", host.name)
    host.sh(f"chmod +x {REPOSITORY}/scripts/setup.sh")

    commit(host, "one")
    ended_well, said = pull(host)
    assert (ended_well, 'result="refused"' in said) == (False, True)
    assert host.run("test", "-e", "/root/played").code != 0
    commit(host, "two", "-S")
    ended_well, said = pull(host)
    assert (ended_well, 'result="applied"' in said) == (True, True), host.sh("journalctl -u vllm-onprem-pull")
    ended_well, said = pull(host)
    assert (ended_well, 'result="unchanged"' in said) == (True, True)
    assert len(host.read("/root/played").splitlines()) == 2  # asked for its hosts, then played


def test_a_host_that_shall_not_pull_any_more_has_no_timer_and_no_metric(
    host: StackHost, controller: Controller
) -> None:
    pull_mode(controller, host)
    assert host.run("systemctl", "is-active", "vllm-onprem-pull.timer").code != 0
    for path in (METRICS, "/etc/vllm-onprem/pull.yaml", "/etc/systemd/system/vllm-onprem-pull.service"):
        assert host.run("test", "-e", path).code != 0
    assert pull_mode(controller, host) == []
