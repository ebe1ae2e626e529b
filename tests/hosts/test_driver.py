"""The loaded driver is the locked one, stays it, and sees every GPU that is on the bus."""

from __future__ import annotations

from typing import Any


def test_the_loaded_driver_is_the_locked_one(host: Any, lock: dict[str, Any]) -> None:
    text = host.file("/proc/driver/nvidia/version").content_string
    assert lock["driver"]["version"] in text.split()
    assert ("Open Kernel Module" in text) == (lock["driver"]["modules"] == "open")


def test_nvidia_smi_and_the_bus_agree_on_the_gpus(host: Any, pci: list[tuple[str, str]]) -> None:
    cards = [identity for identity, kind in pci if kind.startswith("03")]
    uuids = host.check_output("nvidia-smi --query-gpu=uuid --format=csv,noheader").splitlines()
    assert len(set(uuids)) == len(cards) > 0


def test_nouveau_is_off_now_and_at_the_next_boot(host: Any) -> None:
    assert not host.file("/sys/module/nouveau").exists
    assert "blacklist nouveau" in host.file("/etc/modprobe.d/vllm-onprem-nouveau.conf").content_string


def test_an_upgrade_of_everything_would_leave_the_driver(host: Any) -> None:
    """What apt itself would do; on dnf, what is locked."""
    if host.exists("apt-get"):
        simulated = host.check_output("apt-get --simulate --quiet dist-upgrade")
        moved = [line for line in simulated.splitlines() if line.startswith("Inst ") and "nvidia" in line.split()[1]]
        assert moved == []
    else:
        assert "nvidia" in host.check_output("dnf versionlock list")


def test_unattended_upgrades_would_skip_it(host: Any) -> None:
    if host.exists("apt-config"):
        assert '"nvidia"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_the_persistence_daemon_runs(host: Any) -> None:
    service = host.service("nvidia-persistenced")
    assert service.is_running
    assert service.is_enabled
