"""Which packages a host needs for a lock, and which of their versions a repository offers; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SYSTEMS = {"debian12", "debian13", "ubuntu2204", "ubuntu2404", "rhel9"}
RED_HAT = {"RedHat", "Rocky", "AlmaLinux", "CentOS", "OracleLinux"}


def system_key(facts: Mapping[str, Any]) -> str:
    """NVIDIA's name of a distribution and release: debian12, ubuntu2404, rhel9."""
    name, version = str(facts["distribution"]), str(facts["distribution_version"])
    if name in RED_HAT:
        return "rhel" + version.split(".", maxsplit=1)[0]
    if name == "Debian":
        return "debian" + version.split(".", maxsplit=1)[0]
    return name.lower() + version.replace(".", "")


def branch(version: str) -> str:
    return str(version).split(".")[0]


def driver_packages(version: str, modules: str, system: str) -> list[str]:
    """Packages of a driver without a display: kernel modules, CUDA's libraries, nvidia-smi, the persistence daemon.

    Names: NVIDIA's installation guide (compute-only), its table of names that lost the branch in 590 on Ubuntu.
    """
    opened = modules == "open"
    if system.startswith("rhel"):
        return ["nvidia-driver-cuda", "kmod-nvidia-open-dkms" if opened else "kmod-nvidia-latest-dkms",
                "nvidia-persistenced", "nvidia-modprobe"]  # fmt: skip
    if system.startswith("debian"):
        return ["nvidia-driver-cuda", "nvidia-kernel-open-dkms" if opened else "nvidia-kernel-dkms",
                "nvidia-persistenced", "nvidia-modprobe"]  # fmt: skip
    suffix = f"-{branch(version)}" if int(branch(version)) < 590 else ""
    flavour = "-open" if opened else ""
    return [f"nvidia-headless-no-dkms{suffix}{flavour}", f"nvidia-dkms{suffix}{flavour}", f"nvidia-utils{suffix}",
            f"libnvidia-compute{suffix}", f"nvidia-compute-utils{suffix}", "nvidia-modprobe"]  # fmt: skip


def pinning_package(version: str, system: str) -> list[str]:
    """The package that keeps apt on one version; dnf has versionlock for that."""
    return [] if system.startswith("rhel") else [f"nvidia-driver-pinning-{version}"]


def fabric_packages(version: str, system: str) -> list[str]:
    """Fabric Manager and the library through which DCGM sees the switches; their names lost the branch in 580."""
    suffix = "" if int(branch(version)) >= 580 else f"-{branch(version)}"
    if system.startswith("rhel"):
        return ["nvidia-fabricmanager" if not suffix else "nvidia-fabric-manager", f"libnvidia-nscq{suffix}"]
    return [f"nvidia-fabricmanager{suffix}", f"libnvidia-nscq{suffix}"]


def toolkit_packages() -> list[str]:
    return ["nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools",
            "libnvidia-container1"]  # fmt: skip


def locked_packages(lock: Mapping[str, Any], system: str) -> dict[str, str]:
    """{package: version without epoch and revision, '' for any}: everything that a lock names for a system."""
    version, modules = str(lock["driver"]["version"]), str(lock["driver"]["modules"])
    wanted = dict.fromkeys(pinning_package(version, system), "")
    wanted |= dict.fromkeys(driver_packages(version, modules, system) + fabric_packages(version, system), version)
    wanted |= dict.fromkeys(toolkit_packages(), str(lock["container_toolkit"]))
    cuda = lock["engine_cuda"]
    dcgm = ("core", f"cuda{cuda}", "proprietary", f"proprietary-cuda{cuda}")
    wanted |= {f"datacenter-gpu-manager-4-{name}": str(lock["dcgm"]) for name in dcgm}
    if lock["docker"]:  # else the distribution's engine
        wanted |= {"docker-ce": str(lock["docker"]), "docker-ce-cli": str(lock["docker"])}
        wanted |= {"containerd.io": str(lock["containerd"])}
    return wanted


def upstream(version: str) -> str:
    """A version without its epoch and its revision."""
    return str(version).split(":", 1)[-1].rsplit("-", 1)[0]


def newest_first(version: str) -> list[tuple[int, int | str]]:
    """Sorting key: numbers as numbers. Enough for revisions of one upstream version."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", version)]


def resolve_versions(wanted: Mapping[str, str], offered: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """{versions: {package: full version}, problems: [...]}: the newest revision of each version that a lock names."""
    versions: dict[str, str] = {}
    problems = []
    for name, version in wanted.items():
        candidates = sorted(set(offered.get(name, [])), key=newest_first, reverse=True)
        fitting = [each for each in candidates if version in ("", upstream(each))]
        if fitting:
            versions[name] = fitting[0]
        elif not candidates:
            problems.append(f"{name} is in no repository" + (f" (wanted: {version})" if version else ""))
        else:
            some = ", ".join(candidates[:4]) + (", ..." if len(candidates) > 4 else "")
            problems.append(f"{name} {version} is in no repository; offered: {some}")
    return {"versions": versions, "problems": problems}


def with_suites(repositories: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Repositories without a suite are flat, as NVIDIA's are."""
    return [{"suite": "./", "components": [], **repository} for repository in repositories]


def missing_packages(wanted: Mapping[str, str], installed: Mapping[str, str]) -> dict[str, str]:
    """Those of {package: full version, '' for any} that are not installed just so."""
    return {name: version for name, version in wanted.items()
            if name not in installed or version not in ("", installed[name])}  # fmt: skip


def only(packages: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """{package: version} of those names. Raises KeyError for one that is not there."""
    return {name: packages[name] for name in names}


def with_versions(wanted: Mapping[str, str], manager: str) -> list[str]:
    """What apt (name=version) or dnf (name-version) is told to install."""
    sign = "=" if manager == "apt" else "-"
    return [f"{name}{sign}{version}" if version else name for name, version in wanted.items()]


def simulated_versions(text: str) -> dict[str, str]:
    """{package: version} of what `apt-get --simulate install` would install."""
    return dict(re.findall(r"(?m)^Inst (\S+) (?:\[[^]]*\] )?\((\S+)", text))


def out_of_step(packages: Mapping[str, str], version: str, names: Sequence[str]) -> list[str]:
    """Packages among `names` (or named like the driver's parts) whose version is not the driver's."""
    return sorted(f"{name} {each}" for name, each in packages.items() if name in names and upstream(each) != version)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "system_key": system_key,
            "driver_packages": driver_packages,
            "pinning_package": pinning_package,
            "fabric_packages": fabric_packages,
            "locked_packages": locked_packages,
            "resolve_versions": resolve_versions,
            "missing_packages": missing_packages,
            "only": only,
            "with_suites": with_suites,
            "with_versions": with_versions,
            "simulated_versions": simulated_versions,
            "out_of_step": out_of_step,
            "upstream_version": upstream,
        }
