"""What speaks against changing a host, all at once, from what host_survey read there; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

# pci.ids: 10de devices. An NVSwitch is a bridge (class 0680), a GPU a 3D or display controller (0302, 0300).
GPU_CLASSES, SWITCH_CLASS = ("0300", "0302"), "0680"


def gpus(survey: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        device for device in survey["pci"] if device["id"].startswith("10de:") and device["class"][:4] in GPU_CLASSES
    ]


def nvswitches(survey: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        device for device in survey["pci"] if device["id"].startswith("10de:") and device["class"][:4] == SWITCH_CLASS
    ]


def lock_problems(
    lock: Mapping[str, Any], branches: Mapping[str, Any], policy: str, today: str
) -> dict[str, list[str]]:
    """{problems, warnings} of a lock by itself: branch, its end of life, kernel modules, CUDA."""
    version, modules = str(lock["driver"]["version"]), str(lock["driver"]["modules"])
    branch = version.split(".", maxsplit=1)[0]
    if branch not in branches:
        offered = ", ".join(sorted(branches))
        return {"problems": [f"driver {version}: branch {branch} is not one of {offered}"], "warnings": []}
    facts = branches[branch]
    problems: list[str] = []
    warnings: list[str] = []
    end = date.fromisoformat(str(facts["end_of_life"]))
    if end < date.fromisoformat(today):
        good = ", ".join(name for name, each in sorted(branches.items())
                         if date.fromisoformat(str(each["end_of_life"])) >= date.fromisoformat(today))  # fmt: skip
        text = f"driver {version}: branch {branch} has had no fixes since {end}; supported: {good}"
        (warnings if policy == "warn" else problems).append(text)
    if modules not in facts["modules"]:
        problems.append(
            f"driver {version}: branch {branch} has no {modules} kernel modules, only {', '.join(facts['modules'])}"
        )
    if int(facts["cuda"]) < int(lock["engine_cuda"]):
        problems.append(
            f"driver {version}: branch {branch} runs CUDA {facts['cuda']}, "
            f"the engine's image needs {lock['engine_cuda']}"
        )
    return {"problems": problems, "warnings": warnings}


def host_problems(survey: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    """{problems, warnings}: problems are reasons to change nothing.

    wanted: system, systems (supported), kernels (oldest by system), gpus, gpu_ids, nvswitches, boot_free_mib,
    var_free_mib, driver_version, headers_offered (could the running kernel's headers be installed), mig (MIG modes by
    GPU), gpu_processes_allowed.
    """
    problems = [
        *_system(survey, wanted),
        *_space(survey, wanted),
        *_hardware(survey, wanted),
        *_packages(survey),
    ]
    if survey["reboot_pending"]:
        problems.append("a reboot is pending (/run/reboot-required): reboot first, or the next one brings two changes")
    if survey["updates_running"]:
        problems.append("unattended-upgrades is running now: wait until it has ended")
    moving = survey["driver"].get("version") not in (None, wanted["driver_version"])
    users = ", ".join(f"{process['name']} ({process['pid']})" for process in survey["gpu_processes"])
    if users and moving and not wanted["gpu_processes_allowed"]:
        problems.append(f"the driver has to change and GPUs are in use by {users}: drain the host first")
    return {"problems": problems, "warnings": _warnings(survey, wanted)}


def _system(survey: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    if wanted["system"] not in wanted["systems"]:
        found.append(f"{wanted['system']} is not supported; supported: {', '.join(sorted(wanted['systems']))}")
    if survey["machine"] != "x86_64":
        found.append(f"the processor is {survey['machine']}: the lock names packages of x86_64 only")
    oldest = wanted["kernels"].get(wanted["system"])
    if oldest and _numbers(survey["kernel"]) < _numbers(oldest):
        found.append(f"kernel {survey['kernel']} is older than {oldest}, which {wanted['system']} came with")
    if survey["dgx_release"]:
        found.append(
            "this is DGX OS (/etc/dgx-release), which brings driver, Fabric Manager and DCGM of its own: update it "
            "with its own packages and leave the host out of the driver roles"
        )
    if not survey["headers"] and not wanted["headers_offered"]:
        found.append(
            f"no headers of the running kernel {survey['kernel']}: not installed, and no repository has them (a newer "
            "kernel is installed? then reboot into it), so DKMS could not build the driver"
        )
    if survey["secure_boot"] and not survey["mok_key"]:
        found.append(
            "Secure Boot is on and no machine owner key is there (/var/lib/dkms/mok.pub): modules that DKMS builds "
            "would not load; enrol a key (mokutil --import) or turn Secure Boot off"
        )
    if survey["run_install"]:
        found.append(
            "a driver was installed from a .run file (/usr/bin/nvidia-uninstall): run nvidia-uninstall first, packages "
            "and it overwrite each other"
        )
    return found


def _numbers(kernel: str) -> tuple[int, ...]:
    """(6, 1) of 6.1.0-40-amd64: the series."""
    return tuple(int(part) for part in re.findall(r"\d+", str(kernel))[:2])


def _space(survey: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    for name in ("boot", "var"):
        free, needed = survey[f"{name}_free_mib"], wanted[f"{name}_free_mib"]
        if free is not None and free < needed:
            found.append(f"/{name} has {free} MiB free, {needed} are needed")
    return found


def _hardware(survey: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    cards, switches = gpus(survey), nvswitches(survey)
    if wanted["gpus"] is not None and len(cards) != int(wanted["gpus"]):
        found.append(f"{len(cards)} GPUs on the PCI bus, {wanted['gpus']} expected: {_addresses(cards)}")
    strange = sorted({card["id"] for card in cards} - set(wanted["gpu_ids"])) if wanted["gpu_ids"] else []
    if strange:
        found.append(f"GPUs of another model: PCI ids {', '.join(strange)}, expected {', '.join(wanted['gpu_ids'])}")
    if wanted["nvswitches"] is not None and len(switches) != int(wanted["nvswitches"]):
        found.append(
            f"{len(switches)} NVSwitches on the PCI bus, {wanted['nvswitches']} expected: {_addresses(switches)}"
        )
    split = [bus for bus, mode in wanted["mig"].items() if mode == "Enabled"]
    if split:
        found.append(f"MIG is on for {', '.join(split)}: nvidia-smi -mig 0, as tensor parallelism needs whole GPUs")
    return found


def _packages(survey: Mapping[str, Any]) -> list[str]:
    found = []
    ubuntus = sorted(name for name in survey["packages"] if re.fullmatch(r"(lib)?nvidia-.*-server(-open)?", name))
    if ubuntus:
        found.append(
            f"driver packages of the distribution are installed ({', '.join(ubuntus)}); with NVIDIA's repository "
            "beside them versions mix: remove them first (apt-get purge)"
        )
    others = sorted({source["file"] for source in survey["apt_sources"] if _is_driver_source(source)})
    if others:
        found.append(
            f"other sources of the driver: {', '.join(others)}; two with different keys make apt refuse both, and a "
            "PPA mixes versions: remove them (cuda-keyring brings one: purge it)"
        )
    return found


def _is_driver_source(source: Mapping[str, str]) -> bool:
    own = source["file"].startswith("/etc/apt/sources.list.d/vllm-onprem-")
    foreign = re.search(r"/compute/cuda/repos/|libnvidia-container|graphics-drivers", source["uri"]) is not None
    return foreign and not own


def _warnings(survey: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    acs = [device["address"] for device in survey["pci"] if device["acs"]]
    if acs:
        found.append(
            f"PCIe ACS is on for {', '.join(acs)}: it sends traffic between GPUs through the CPU (nccl issue 2079); "
            "NVLink is not affected. Off in the firmware, if this host needs GPU-to-NIC or PCIe peer traffic"
        )
    if "unattended-upgrades" in survey["packages"] and "nvidia" not in survey["updates_hold"]:
        found.append("unattended-upgrades may move the driver; nvidia_driver will hold it off")
    if survey["gpu_processes"]:
        found.append("GPUs are in use: " + ", ".join(process["name"] for process in survey["gpu_processes"]))
    return found


def _addresses(devices: list[dict[str, Any]]) -> str:
    return ", ".join(device["address"] for device in devices) or "none"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"host_problems": host_problems, "lock_problems": lock_problems, "nvswitches": nvswitches, "gpus": gpus}
