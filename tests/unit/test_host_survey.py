"""What a host looks like, read from files laid out as one, and what speaks against changing it."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from host_problems import gpus, host_problems, lock_problems, nvswitches
from host_survey import Survey, acs_control, has_gpu

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build  (dvs-builder@U22)\n"
PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.195.03  Sat Sep 20 00:00:00 UTC 2026\nGCC version:  gcc 12\n"
)
LOCK: dict[str, Any] = {"driver": {"version": "580.178.04", "modules": "open"}, "engine_cuda": 13}
BRANCHES: dict[str, Any] = {
    "570": {"end_of_life": "2026-02-28", "cuda": 12, "modules": ["open", "proprietary"]},
    "580": {"end_of_life": "2028-06-30", "cuda": 13, "modules": ["open", "proprietary"]},
    "620": {"end_of_life": "2029-09-30", "cuda": 13, "modules": ["open"]},
}


def file(root: Path, name: str, data: bytes | str) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def device(root: Path, address: str, identity: str, kind: str, config: bytes = b"") -> None:
    vendor, product = identity.split(":")
    for name, text in (("vendor", vendor), ("device", product), ("class", kind)):
        file(root, f"/sys/bus/pci/devices/{address}/{name}", f"0x{text}\n")
    file(root, f"/sys/bus/pci/devices/{address}/config", config or bytes(256))


def with_acs(control: int) -> bytes:
    """A configuration space with two extended capabilities, ACS second."""
    config = bytearray(4096)
    struct.pack_into("<I", config, 0x100, 0x0001 | 1 << 16 | 0x140 << 20)
    struct.pack_into("<IHH", config, 0x140, 0x000D | 1 << 16, 0x5F, control)
    return bytes(config)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """An 8xA100 host with its driver loaded."""
    for number in range(8):
        device(tmp_path, f"0000:{0x10 + number:02x}:00.0", "10de:20b2", "030200")
    for number in range(6):
        device(tmp_path, f"0000:{0xC4 + number:02x}:00.0", "10de:1af1", "068000")
    device(tmp_path, "0000:00:01.0", "1022:1483", "060400", with_acs(0))
    file(tmp_path, "/proc/driver/nvidia/version", OPEN)
    return tmp_path


def survey(root: Path, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = Survey(str(root)).all()
    here = {"kernel": "6.1.0-40-amd64", "machine": "x86_64", "boot_free_mib": 1000, "var_free_mib": 99999}
    return {**found, **here, "headers": True, **changes}


def wanted(**changes: Any) -> dict[str, Any]:
    return {
        "system": "debian12",
        "systems": ["debian12", "ubuntu2404"],
        "kernels": {"debian12": "6.1", "ubuntu2404": "6.8"},
        "gpus": 8,
        "gpu_ids": ["10de:20b2"],
        "nvswitches": 6,
        "boot_free_mib": 300,
        "var_free_mib": 5000,
        "driver_version": "580.178.04",
        "headers_offered": True,
        "mig": {},
        "gpu_processes_allowed": False,
        **changes,
    }


def problems(found: dict[str, Any], **changes: Any) -> list[str]:
    return host_problems(found, wanted(**changes))["problems"]


def test_gpus_and_switches_are_told_apart_by_pci_class(host: Path) -> None:
    found = survey(host)
    assert (len(gpus(found)), len(nvswitches(found))) == (8, 6)
    assert found["driver"] == {"version": "580.178.04", "modules": "open"}


def test_both_kernel_modules_say_which_they_are(host: Path) -> None:
    file(host, "/proc/driver/nvidia/version", PROPRIETARY)
    assert survey(host)["driver"] == {"version": "570.195.03", "modules": "proprietary"}


def test_a_good_host_has_no_problem(host: Path) -> None:
    assert host_problems(survey(host), wanted()) == {"problems": [], "warnings": []}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headers": False}, "no headers of the running kernel"),
        ({"kernel": "5.10.0-39-amd64"}, "kernel 5.10.0-39-amd64 is older than 6.1, which debian12 came with"),
        ({"machine": "aarch64"}, "the processor is aarch64"),
        ({"secure_boot": True}, "Secure Boot is on"),
        ({"boot_free_mib": 20}, "/boot has 20 MiB free, 300 are needed"),
        ({"var_free_mib": 20}, "/var has 20 MiB free"),
        ({"run_install": True}, "nvidia-uninstall first"),
        ({"dgx_release": True}, "this is DGX OS"),
        ({"reboot_pending": True}, "a reboot is pending"),
        ({"updates_running": True}, "unattended-upgrades is running now"),
        ({"packages": {"nvidia-utils-580-server": "580.95.05-0ubuntu1"}}, "nvidia-utils-580-server"),
        ({"apt_sources": [{"file": "/etc/apt/sources.list.d/cuda-debian12-x86_64.list",
                           "uri": "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"}]},
         "cuda-debian12-x86_64.list"),
        ({"apt_sources": [{"file": "/etc/apt/sources.list.d/ppa.list",
                           "uri": "https://ppa.launchpadcontent.net/graphics-drivers/ppa/ubuntu"}]}, "ppa.list"),
        ({"driver": {"version": "580.159.03", "modules": "open"},
          "gpu_processes": [{"pid": 7, "name": "VLLM::Worker"}]},
         "in use by VLLM::Worker (7)"),
    ],
)  # fmt: skip
def test_each_reason_to_refuse_is_found_alone(host: Path, changes: dict[str, Any], words: str) -> None:
    found = problems(survey(host, **changes), headers_offered=changes.get("headers", True))
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "ubuntu2004"}, "ubuntu2004 is not supported; supported: debian12, ubuntu2404"),
        ({"gpus": 4}, "8 GPUs on the PCI bus, 4 expected"),
        ({"gpu_ids": ["10de:2330"]}, "GPUs of another model: PCI ids 10de:20b2"),
        ({"nvswitches": 0}, "6 NVSwitches on the PCI bus, 0 expected"),
        ({"mig": {"00000000:07:00.0": "Enabled", "00000000:0F:00.0": "Disabled"}}, "MIG is on for 00000000:07:00.0:"),
    ],
)
def test_each_expectation_that_fails_is_named(host: Path, changes: dict[str, Any], words: str) -> None:
    found = problems(survey(host), **changes)
    assert len(found) == 1
    assert words in found[0]


def test_all_problems_are_listed_at_once(host: Path) -> None:
    found = problems(survey(host, secure_boot=True, run_install=True, reboot_pending=True), gpus=4)
    assert len(found) == 4


def test_our_own_source_is_no_foreign_one_and_a_busy_host_that_keeps_its_driver_is_fine(host: Path) -> None:
    own = {
        "file": "/etc/apt/sources.list.d/vllm-onprem-nvidia.sources",
        "uri": "https://x/compute/cuda/repos/debian12/x86_64",
    }
    busy = [{"pid": 7, "name": "VLLM::Worker"}]
    found = host_problems(survey(host, apt_sources=[own], gpu_processes=busy), wanted())
    assert found["problems"] == []
    assert found["warnings"] == ["GPUs are in use: VLLM::Worker"]


def test_acs_is_a_warning_and_is_read_from_the_bridge(host: Path, tmp_path: Path) -> None:
    device(host, "0000:00:03.0", "1022:1483", "060400", with_acs(0x1D))
    assert acs_control(str(host / "sys/bus/pci/devices/0000:00:03.0/config")) == 0x1D
    assert acs_control(str(host / "sys/bus/pci/devices/0000:00:01.0/config")) == 0
    found = host_problems(survey(host), wanted())
    assert found["problems"] == []
    assert re.match(r"PCIe ACS is on for 0000:00:03\.0:", found["warnings"][0])


def test_secure_boot_is_read_from_the_firmware(host: Path) -> None:
    name = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    file(host, name, b"\6\0\0\0\1")
    assert survey(host)["secure_boot"] is True
    file(host, "/var/lib/dkms/mok.pub", "key")
    assert problems(survey(host)) == []


def test_a_process_with_a_gpu_is_found_and_nvidias_daemons_are_none(host: Path) -> None:
    for pid, name, target in (
        (40, "VLLM::Worker", "/dev/nvidia3"),
        (41, "nv-hostengine", "/dev/nvidiactl"),
        (42, "bash", "/dev/null"),
    ):
        file(host, f"/proc/{pid}/comm", name + "\n")
        (host / f"proc/{pid}/fd").mkdir()
        (host / f"proc/{pid}/fd/3").symlink_to(target)
    assert survey(host)["gpu_processes"] == [{"pid": 40, "name": "VLLM::Worker"}]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"DeviceRequests": [{"Driver": "nvidia", "Capabilities": [["gpu"]]}]}, True),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]}, True),
        ({"Runtime": "nvidia"}, True),
        ({"Devices": [{"PathOnHost": "/dev/nvidia0"}]}, True),
        ({"Runtime": "runc", "Devices": [], "DeviceRequests": None}, False),
    ],
)
def test_every_way_to_give_a_container_a_gpu_is_seen(settings: dict[str, Any], expected: bool) -> None:
    assert has_gpu({"HostConfig": settings}) is expected


def lock(
    version: str, modules: str = "open", today: str = "2026-11-24", policy: str = "refuse"
) -> dict[str, list[str]]:
    return lock_problems({**LOCK, "driver": {"version": version, "modules": modules}}, BRANCHES, policy, today)


def test_the_default_branch_is_fine_until_its_last_day() -> None:
    assert lock("580.178.04") == {"problems": [], "warnings": []}
    assert lock("580.178.04", today="2028-06-30")["problems"] == []
    assert (
        "580 has had no fixes since 2028-06-30; supported: 620" in lock("580.178.04", today="2028-07-01")["problems"][0]
    )


def test_a_branch_past_its_end_is_refused_or_warned_of_and_too_old_for_the_engines_cuda() -> None:
    found = lock("570.195.03")
    assert [text.split(":")[0] for text in found["problems"]] == ["driver 570.195.03"] * 2
    assert "runs CUDA 12, the engine's image needs 13" in found["problems"][1]
    warned = lock("570.195.03", policy="warn")
    assert "no fixes since 2026-02-28" in warned["warnings"][0]
    assert len(warned["problems"]) == 1


def test_620_has_open_modules_only_and_an_unknown_branch_is_refused() -> None:
    assert "no proprietary kernel modules, only open" in lock("620.10.01", "proprietary")["problems"][0]
    assert "branch 333 is not one of 570, 580, 620" in lock("333.1.1")["problems"][0]
