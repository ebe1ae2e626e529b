"""The hard cases, each on hosts of its own: what is refused and when, what a cut run leaves, upgrades and back.

Long: make test-hosts-matrix.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from provision.bed.hosts import Bed, Hardware, Host
from provision.bed.packages import KERNEL
from provision.bed.playbooks import NEW, NEXT, OLD, driver, good
from provision.bed.repository import Repositories
from provision.conftest import Play
from provision.undone import undone

Fresh = Callable[..., Host]


def untouched(host: Host, before: str) -> bool:
    return everything(host) == before


def everything(host: Host) -> str:
    return host.sh("dpkg-query -W; find /etc /boot -type f -exec sha256sum {} + | sort -k2")


# --- refused before anything is changed


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (driver("580.999.99"), "nvidia-driver-cuda 580.999.99 is in no repository; offered:"),
        (driver("570.195.03"), "branch 570 has had no fixes since 2026-02-28"),
        (driver("620.10.01", "proprietary"), "branch 620 has no proprietary kernel modules"),
        ({"dcgm": "9.9.9"}, "datacenter-gpu-manager-4-core 9.9.9 is in no repository"),
    ],
)
def test_a_lock_that_cannot_be_is_refused_before_the_host_is_touched(
    fresh: Fresh, run_play: Play, lock: dict[str, Any], words: str
) -> None:
    host = fresh()
    before = everything(host)
    run = run_play("provision.yml", host, lock=lock)
    assert run.code == 2
    assert words in run.failures()
    assert untouched(host, before)


def test_a_repository_that_is_not_there_is_named(fresh: Fresh, run_play: Play) -> None:
    run = run_play("check_lock.yml", fresh(), repository="nothing")
    assert run.code == 2
    assert "/nothing/cuda): no index under" in run.failures()


def test_a_fabric_manager_that_the_repository_lacks_stops_the_driver_too(
    fresh: Fresh, run_play: Play, repositories: Repositories
) -> None:
    repositories.publish(
        "lacking", lambda package: (package.name, package.version) != ("nvidia-fabricmanager", f"{NEW}-1")
    )
    host = fresh()
    before = everything(host)
    run = run_play("provision.yml", host, repository="lacking")
    assert run.code == 2
    assert f"nvidia-fabricmanager {NEW} is in no repository; offered:" in run.failures()
    assert untouched(host, before)


def test_a_branch_past_its_end_passes_with_a_warning_where_that_is_enough(fresh: Fresh, run_play: Play) -> None:
    lock = {**driver("570.195.03"), "engine_cuda": 12}
    run = good(run_play("check_lock.yml", fresh(), lock=lock, package_sources_end_of_life="warn"))
    assert "has had no fixes since 2026-02-28" in str([result.get("msg") for _, _, result in run.tasks])


def many_problems(hardware: Hardware) -> None:
    hardware["secure_boot"] = True
    hardware["pci"] = [device for device in hardware["pci"] if device["address"] != "0000:47:00.0"]
    next(device for device in hardware["pci"] if device["class"] == "060400")["acs"] = 0x1D


def test_every_problem_of_a_host_is_named_at_once(fresh: Fresh, run_play: Play) -> None:
    host = fresh(many_problems)
    host.sh("touch /usr/bin/nvidia-uninstall /etc/dgx-release /run/reboot-required")
    before = everything(host)
    run = run_play("provision.yml", host)
    assert run.code == 2
    failures = run.failures()
    for words in (
        "7 GPUs on the PCI bus, 8 expected",
        "Secure Boot is on",
        "nvidia-uninstall first",
        "this is DGX OS",
        "a reboot is pending",
    ):
        assert words in failures
    assert any("PCIe ACS is on for 0000:00:01.0" in str(result.get("msg")) for _, _, result in run.tasks)
    assert untouched(host, before)


def test_missing_headers_of_the_running_kernel_are_found_before_the_driver(fresh: Fresh, run_play: Play) -> None:
    host = fresh()
    host.sh("rm /etc/apt/sources.list.d/kernel.list; apt-get update")
    before = everything(host)
    run = run_play("provision.yml", host)
    assert run.code == 2
    assert f"no headers of the running kernel {KERNEL}" in run.failures()
    assert untouched(host, before)


def test_a_reboot_that_nobody_allowed_is_not_made(fresh: Fresh, run_play: Play) -> None:
    host = fresh()
    boot = host.read("/proc/sys/kernel/random/boot_id")
    run = run_play("provision.yml", host, nvidia_driver_reboot_allowed=False)
    assert run.code == 2
    assert "has to reboot: nouveau holds the GPUs" in run.failures()
    assert host.read("/proc/sys/kernel/random/boot_id") == boot
    assert run_play("provision.yml", host).code == 0  # allowed: goes on where it stopped


def test_no_reboot_where_nothing_holds_the_gpus(fresh: Fresh, run_play: Play) -> None:
    host = fresh(lambda hardware: hardware.update(nouveau=False))
    boot = host.read("/proc/sys/kernel/random/boot_id")
    good(run_play("provision.yml", host))
    assert host.read("/proc/sys/kernel/random/boot_id") == boot


# --- other machines, other choices


def test_a_host_without_switches_gets_no_fabric_manager(fresh: Fresh, run_play: Play) -> None:
    def pcie(hardware: Hardware) -> None:
        hardware["pci"] = [device for device in hardware["pci"] if device["class"] != "068000"]
        for gpu in hardware["gpus"]:
            gpu["links"] = []

    host = fresh(pcie)
    run = run_play(
        "provision.yml",
        host,
        preflight_nvswitches=0,
        node_report_nvswitches=0,
        node_report_nvlinks=0,
        node_report_nvlink_gb_per_s=0,
        node_report_services=["nvidia-persistenced", "nvidia-dcgm", "docker"],
    )
    good(run)
    assert host.package("nvidia-fabricmanager") == ""


def test_proprietary_modules_where_they_are_asked_for(provisioned: Fresh, run_play: Play) -> None:
    host = provisioned()
    good(run_play("provision.yml", host, lock=driver(NEW, "proprietary")))
    assert "Open" not in host.read("/proc/driver/nvidia/version")
    good(run_play("provision.yml", host, lock=driver(NEW, "open")))  # and back
    assert "Open Kernel Module" in host.read("/proc/driver/nvidia/version")


def test_a_users_own_daemon_json_is_kept(fresh: Fresh, run_play: Play) -> None:
    host = fresh(lambda hardware: hardware.update(nouveau=False))
    host.sh("mkdir -p /etc/docker")
    host.write(
        "/etc/docker/daemon.json",
        '{"registry-mirrors": ["https://m.example.org"], "exec-opts": ["native.cgroupdriver=systemd"]}',
    )
    assert run_play("provision.yml", host).code == 0
    config = host.json("/etc/docker/daemon.json")
    assert config["registry-mirrors"] == ["https://m.example.org"]
    assert config["exec-opts"] == ["native.cgroupdriver=cgroupfs"]
    assert "nvidia" in config["runtimes"]
    assert host.sh("docker info --format '{{.CgroupDriver}} {{.LiveRestoreEnabled}}'").split() == ["cgroupfs", "true"]


def test_docker_is_not_restarted_under_a_container_with_gpus(provisioned: Fresh, run_play: Play) -> None:
    host = provisioned()
    # Any root file system will do: the container only has to run, and to have been given the GPUs.
    host.sh("tar -C / -c bin lib lib64 usr/bin usr/lib64 usr/lib/x86_64-linux-gnu | docker import - own >/dev/null")
    host.sh("docker run --detach --name engine --device /dev/null:/dev/nvidia0 --runtime nvidia own sleep infinity")
    assert host.sh("sleep 1; docker inspect --format {{.State.Running}} engine").strip() == "true"
    pid = host.read("/run/docker.pid")
    run = good(
        run_play("provision.yml", host, docker_daemon_options={"live-restore": True, "max-concurrent-downloads": 2})
    )
    assert host.read("/run/docker.pid") == pid
    assert any("has yet to read it" in str(result.get("msg")) for _, _, result in run.tasks)
    told = {"live-restore": True, "max-concurrent-downloads": 2}
    assert run_play("provision.yml", host, docker_daemon_options=told, docker_restart="always").code == 0
    assert host.read("/run/docker.pid") != pid
    assert host.sh("sleep 1; docker inspect --format {{.State.Running}} engine").strip() == "true"  # live-restore


def test_dcgm_3_is_refused_and_not_swapped(fresh: Fresh, run_play: Play, bed: Bed) -> None:
    host = fresh(lambda hardware: hardware.update(nouveau=False))
    host.sh(f"echo 'deb [trusted=yes] {bed.web}/full/cuda ./' >/etc/apt/sources.list.d/x.list; apt-get -q update; "
            "apt-get -q install -y datacenter-gpu-manager; rm /etc/apt/sources.list.d/x.list")  # fmt: skip
    run = run_play("provision.yml", host)
    assert run.code == 2
    assert "has DCGM 3" in run.failures()
    assert host.package("datacenter-gpu-manager") == "1:3.3.9-1"


# --- interrupted, moved, gone wrong


@pytest.mark.parametrize(
    "task", ["Install with apt", "Keep nouveau off", "Reboot", "Let it add the runtime", "Write the report"]
)
def test_a_run_that_was_cut_short_is_finished_by_the_next(fresh: Fresh, run_play: Play, task: str) -> None:
    host = fresh()
    cut = run_play("provision.yml", host, kill_at=task)
    assert cut.code == -9
    for _ in range(60):  # what the host still does by itself, as after a lost connection
        if host.run("pgrep", "-x", "dpkg|apt-get").code:
            break
        time.sleep(1)
    host.wait()
    good(run_play("provision.yml", host))
    assert run_play("provision.yml", host).changed() == []


def test_another_fabric_manager_is_seen_and_put_right(provisioned: Fresh, run_play: Play) -> None:
    host = provisioned()
    host.sh(f"apt-get -q install -y --allow-downgrades nvidia-fabricmanager={OLD}-1")
    seen = run_play("verify.yml", host)
    assert seen.code == 2
    assert f"fabric_manager: {OLD}, locked: {NEW}" in seen.failures()
    assert run_play("provision.yml", host).code == 0
    assert host.package("nvidia-fabricmanager") == f"{NEW}-1"


def test_a_transaction_that_splits_driver_and_fabric_manager_is_refused(
    fresh: Fresh, run_play: Play, repositories: Repositories
) -> None:
    """The index lists the version, apt cannot install it: its library is not there."""
    repositories.publish(
        "torn", lambda package: not (package.name == "libnvidia-ml1" and package.version.startswith(NEW))
    )
    host = fresh()
    run = run_play("provision.yml", host, repository="torn")
    assert run.code == 2
    assert "cannot be installed in one piece" in run.failures()
    assert host.package("nvidia-driver-cuda") == ""
    assert host.package("nvidia-fabricmanager") == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda gpus: gpus.pop(), "7 GPUs answer, 8 expected"),
        (lambda gpus: gpus[0].update({"ecc.errors.uncorrected.volatile.total": 1}), "1 uncorrected ECC errors"),
        (lambda gpus: gpus[0].update({"diag": "Fail"}), "DCGM diagnostic level 2: software failed"),
        (lambda gpus: gpus[0].update({"pcie": 9.5}), "GPU 0: PCIe 9.5 GB/s, at least 21 expected"),
        (lambda gpus: gpus[0]["links"].__setitem__(3, "<inactive>"), "11 NVLinks active, 12 expected"),
    ],
)
def test_a_node_with_bad_hardware_is_not_called_good(
    provisioned: Fresh, run_play: Play, change: Callable[[list[dict[str, Any]]], None], words: str
) -> None:
    host = provisioned(hardware=lambda hardware: change(hardware["gpus"]))
    run = run_play("verify.yml", host, node_report_diagnostic_again=True)
    assert run.code == 2
    assert words in run.failures()


@pytest.mark.parametrize("held", [True, False])
def test_unattended_upgrades_move_the_driver_unless_it_is_held(provisioned: Fresh, held: bool) -> None:
    host = provisioned()
    host.sh("apt-get -q update; apt-get -q install -y --no-install-recommends unattended-upgrades >/dev/null")
    host.write("/etc/apt/apt.conf.d/99all", 'Unattended-Upgrade::Origins-Pattern { "origin=NVIDIA"; };\n')
    if not held:  # what happens without the role: the test would otherwise prove nothing
        host.sh("cd /etc/apt; rm preferences.d/vllm-onprem-* preferences.d/nvidia-* apt.conf.d/60vllm-onprem-nvidia")
    host.sh("unattended-upgrade --verbose 2>&1 || true")
    assert (host.package("nvidia-driver-cuda") == f"{NEW}-1") is held
    assert (host.package("nvidia-fabricmanager") == f"{NEW}-1") is held


def test_what_is_undone_by_hand_is_repaired(provisioned: Fresh, run_play: Play) -> None:
    host = provisioned()
    assert run_play("provision.yml", host).code == 0  # what a boot forgets of a host that was kept as an image
    cases = undone()
    wanted = {case["what"]: host.sh(case["ask"]) for case in cases}
    for case in cases:
        host.sh(case["undo"])
    damaged = {case["what"]: host.run("bash", "-c", case["ask"]).out for case in cases}
    assert [what for what in wanted if damaged[what] == wanted[what]] == []  # every one of them was undone
    host.sh("systemctl daemon-reload")
    run = good(run_play("provision.yml", host))
    assert run.stats[host.name]["changed"] > 20
    assert {case["what"]: host.run("bash", "-c", case["ask"]).out for case in cases} == wanted
    assert run_play("provision.yml", host).changed() == []


# --- upgrades


def test_up_and_down_and_back_from_kept_packages(provisioned: Fresh, run_play: Play) -> None:
    first, second = provisioned(OLD), provisioned(OLD)
    both = [first, second]
    run = good(run_play("upgrade_driver.yml", both, lock=driver(NEXT)))
    reboots = [at for at, name, result in run.tasks if name.endswith("Reboot") and result.get("rebooted")]
    assert reboots == [first.name, second.name]  # one after the other
    for host in both:
        assert NEXT in host.read("/proc/driver/nvidia/version")
        assert host.package("nvidia-fabricmanager") == f"{NEXT}-2"  # its own revision, found in the repository

    # back, with no repository in reach
    first.sh("rm /etc/apt/sources.list.d/*; rm -rf /var/lib/apt/lists/*; mkdir -p /var/lib/apt/lists/partial")
    good(run_play("rollback_driver.yml", first, lock=driver(NEXT)))
    assert OLD in first.read("/proc/driver/nvidia/version")
    assert first.package("nvidia-fabricmanager") == f"{OLD}-1"
    assert NEXT in second.read("/proc/driver/nvidia/version")

    # down by the lock, from the repository
    good(run_play("upgrade_driver.yml", second, lock=driver(NEW)))
    assert NEW in second.read("/proc/driver/nvidia/version")
    assert second.package("nvidia-fabricmanager") == f"{NEW}-1"


def test_an_upgrade_stops_at_the_first_host_that_fails(provisioned: Fresh, run_play: Play) -> None:
    first, second = provisioned(OLD), provisioned(OLD)
    first.hardware(lambda hardware: hardware["gpus"].pop())  # dies in the reboot
    run = run_play("upgrade_driver.yml", [first, second], lock=driver(NEW))
    assert run.code == 2
    assert "7 GPUs answer, 8 expected" in run.failures()
    assert OLD in second.read("/proc/driver/nvidia/version")
    assert not any(at == first.name and name.endswith("Say that the host may serve again") for at, name, _ in run.tasks)


def test_a_host_in_use_is_not_upgraded(provisioned: Fresh, run_play: Play) -> None:
    host = provisioned(OLD)
    host.container.exec_run(["bash", "-c", "exec 3</dev/nvidia0; exec sleep infinity"], detach=True)
    time.sleep(1)
    run = run_play("upgrade_driver.yml", host, lock=driver(NEW))
    assert run.code == 2
    assert "is in use by sleep" in run.failures()
    assert host.package("nvidia-driver-cuda") == f"{OLD}-1"


# --- many at once


def test_several_hosts_at_once_are_cheaper_than_one_after_the_other(fresh: Fresh, run_play: Play) -> None:
    """20 do not fit a small machine, whose hosts share its processors: what fits is measured, and the ratio printed."""
    one = good(run_play("provision.yml", fresh()))
    hosts = [fresh() for _ in range(4)]
    several = good(run_play("provision.yml", hosts))
    ratio = several.seconds / one.seconds
    print(f"1 host: {one.seconds:.0f} s; {len(hosts)} hosts at once: {several.seconds:.0f} s, {ratio:.1f} times one")
    assert ratio < 3
