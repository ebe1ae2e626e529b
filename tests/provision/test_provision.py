"""One bare 8xA100 server as an operator treats it: looked at, provisioned, again, verified. Part of `make test`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from provision.bed.hosts import Bed, Host
from provision.bed.playbooks import ANSIBLE, LOCK, ROOT, Inventory, Run, good
from provision.conftest import Play
from provision.undone import undone

VERSION = LOCK["driver"]["version"]
# Of a run that changes nothing. A minute on a slow machine; the seconds are printed, as they are the machine's.
STEPS = 115


@pytest.fixture(scope="module")
def host(bed: Bed) -> Iterator[Host]:
    made = bed.host("gpu1")
    yield made
    bed.remove(made)


@pytest.fixture(scope="module")
def first_run() -> list[Run]:
    """The run that made a GPU host of it, once there was one."""
    return []


def told(run: Run) -> str:
    """What a run cost."""
    return f"{run.seconds:.0f} s, {run.processor_seconds:.0f} of them Ansible's own, {len(run.results())} steps"


def everything(host: Host) -> str:
    """Packages, files under /etc and units: what a run that only looks must leave as it is."""
    return host.sh(
        "dpkg-query -W; find /etc /boot -type f -exec sha256sum {} + | sort -k2; systemctl list-unit-files --no-legend"
    )


def test_check_mode_on_a_bare_host_succeeds_and_changes_nothing(host: Host, run_play: Play) -> None:
    before = everything(host)
    run = good(run_play("provision.yml", host, "--check", "--diff"))
    assert run.stats[host.name]["changed"] > 10  # what it would do
    assert everything(host) == before


def test_a_bare_host_becomes_a_gpu_host(host: Host, run_play: Play, first_run: list[Run]) -> None:
    boot = host.read("/proc/sys/kernel/random/boot_id")
    run = run_play("provision.yml", host)
    first_run.append(run)
    good(run)
    print(f"first run: {told(run)}")
    assert VERSION in host.read("/proc/driver/nvidia/version")
    assert host.read("/proc/sys/kernel/random/boot_id") != boot  # nouveau held the GPUs
    report = host.json("/var/lib/vllm-onprem/node_report.json")
    assert report["drift"] == []
    assert (len(report["gpus"]), report["nvswitches"]) == (8, 6)
    assert report["versions"]["fabric_manager"] == VERSION
    assert report["diagnostic"]["passed"]


def test_the_second_run_changes_nothing_and_takes_few_steps(host: Host, run_play: Play) -> None:
    run = good(run_play("provision.yml", host))
    assert run.changed() == []
    print(f"second run: {told(run)}")
    assert len(run.results()) <= STEPS


def test_the_hosts_own_checks_pass(host: Host, bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("own")
    inventory = Inventory(folder, f"{bed.web}/full").write([host], LOCK, {})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "tests/hosts",
            # nothing is deployed here
            "--ignore=tests/hosts/test_stack.py",
            "--ignore=tests/hosts/test_fleet_host.py",
            "--hosts=ansible://gpu_nodes",
            f"--ansible-inventory={inventory}",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PROVISION_LOCK": str(folder / "lock.yml"),
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


def test_every_file_that_was_written_is_among_those_that_are_undone(first_run: list[Run]) -> None:
    """By test_hosts_matrix.py, which sees each of them repaired."""
    cases = yaml.safe_dump(undone(), width=9999)
    assert first_run
    assert [path for path in sorted(first_run[0].written()) if path not in cases] == []


def test_after_a_power_cut_everything_comes_up_in_order(host: Host, run_play: Play) -> None:
    host.boot()
    names = ("nvidia-fabricmanager", "nvidia-cdi-refresh", "docker")
    asked = "systemctl show --property=ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic --value"
    # a service that has done its work is inactive again: since when
    fabric, refreshed, docker = (max(map(int, host.sh(f"{asked} {name}").split())) for name in names)
    assert 0 < fabric < refreshed < docker
    assert len(host.sh("nvidia-ctk cdi list").split()) == 8
    good(run_play("verify.yml", host))


def test_verify_is_quiet_on_a_good_host_and_loud_on_drift(host: Host, run_play: Play) -> None:
    assert run_play("verify.yml", host).code == 0
    host.hardware(lambda hardware: hardware["gpus"][3].update({"ecc.errors.uncorrected.volatile.total": 2}))
    host.sh("systemctl stop nvidia-dcgm")
    run = run_play("verify.yml", host)
    assert run.code == 2
    assert "GPU-00000000-0000-0000-0000-000000000003: 2 uncorrected ECC errors" in run.failures()
    assert "service nvidia-dcgm is inactive" in run.failures()
    assert "node_provision_drift" in host.read("/var/lib/node_exporter/textfile/vllm_onprem_node.prom")
    host.hardware(lambda hardware: hardware["gpus"][3].update({"ecc.errors.uncorrected.volatile.total": 0}))
    host.sh("systemctl start nvidia-dcgm")
    assert run_play("verify.yml", host).code == 0


def test_the_lock_of_the_project_is_one(host: Host) -> None:
    lock = yaml.safe_load((ANSIBLE / "provision.lock.yml").read_text())["provision_lock"]
    assert set(lock) == set(LOCK)
