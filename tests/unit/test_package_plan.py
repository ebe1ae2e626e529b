"""Packages of a lock on every supported system, and what the repositories' indexes say about their versions."""

from __future__ import annotations

from typing import Any

import pytest
from package_plan import (
    driver_packages,
    fabric_packages,
    locked_packages,
    missing_packages,
    out_of_step,
    pinning_package,
    resolve_versions,
    simulated_versions,
    system_key,
    upstream,
    with_versions,
)
from repository_versions import apt_versions, dnf_versions, index_names, primary_location

LOCK: dict[str, Any] = {
    "driver": {"version": "580.178.04", "modules": "open"},
    "container_toolkit": "1.20.0",
    "dcgm": "4.6.1",
    "docker": "28.5.2",
    "containerd": "1.7.28",
    "engine_cuda": 13,
}


@pytest.mark.parametrize(
    ("name", "version", "key"),
    [
        ("Debian", "12.11", "debian12"),
        ("Debian", "13", "debian13"),
        ("Ubuntu", "22.04", "ubuntu2204"),
        ("Ubuntu", "24.04", "ubuntu2404"),
        ("RedHat", "9.6", "rhel9"),
        ("Rocky", "9.5", "rhel9"),
        ("Ubuntu", "20.04", "ubuntu2004"),
    ],
)
def test_a_system_has_nvidias_name(name: str, version: str, key: str) -> None:
    assert system_key({"distribution": name, "distribution_version": version}) == key


def test_debian_names_have_no_branch_in_any_version() -> None:
    assert driver_packages("580.178.04", "open", "debian12")[:2] == ["nvidia-driver-cuda", "nvidia-kernel-open-dkms"]
    assert driver_packages("595.91.07", "proprietary", "debian12")[1] == "nvidia-kernel-dkms"


def test_ubuntu_names_lose_the_branch_in_590() -> None:
    assert "nvidia-dkms-580-open" in driver_packages("580.178.04", "open", "ubuntu2204")
    assert "nvidia-dkms-580" in driver_packages("580.178.04", "proprietary", "ubuntu2404")
    assert "nvidia-dkms-open" in driver_packages("595.91.07", "open", "ubuntu2404")
    assert not [name for name in driver_packages("620.10.01", "open", "ubuntu2404") if "620" in name]


def test_red_hat_names_its_kernel_modules_kmod_and_needs_no_pinning_package() -> None:
    assert "kmod-nvidia-open-dkms" in driver_packages("580.178.04", "open", "rhel9")
    assert pinning_package("580.178.04", "rhel9") == []
    assert pinning_package("580.178.04", "ubuntu2404") == ["nvidia-driver-pinning-580.178.04"]


def test_fabric_manager_lost_the_branch_in_580() -> None:
    assert fabric_packages("570.195.03", "ubuntu2204") == ["nvidia-fabricmanager-570", "libnvidia-nscq-570"]
    assert fabric_packages("580.178.04", "debian12") == ["nvidia-fabricmanager", "libnvidia-nscq"]
    assert fabric_packages("570.195.03", "rhel9")[0] == "nvidia-fabric-manager"
    assert fabric_packages("580.178.04", "rhel9")[0] == "nvidia-fabricmanager"


def test_a_lock_names_everything_and_docker_only_if_it_is_docker_s_own() -> None:
    wanted = locked_packages(LOCK, "debian12")
    assert wanted["nvidia-fabricmanager"] == wanted["nvidia-driver-cuda"] == "580.178.04"
    assert wanted["nvidia-driver-pinning-580.178.04"] == ""  # its own version means nothing
    assert wanted["libnvidia-container1"] == "1.20.0"
    assert wanted["datacenter-gpu-manager-4-cuda13"] == "4.6.1"
    assert wanted["docker-ce"] == "28.5.2"
    assert "docker-ce" not in locked_packages({**LOCK, "docker": None}, "debian12")


def test_versions_are_compared_without_epoch_and_revision() -> None:
    assert upstream("1:4.6.1-1") == "4.6.1"
    assert upstream("5:28.5.2-1~debian.12~bookworm") == "28.5.2"
    assert upstream("580.178.04-0ubuntu1") == "580.178.04"


def test_the_newest_revision_is_taken_and_never_another_version() -> None:
    offered = {
        "nvidia-fabricmanager": ["580.159.03-1", "580.178.04-1", "580.178.04-10", "580.178.04-2", "580.190.01-1"]
    }
    found = resolve_versions({"nvidia-fabricmanager": "580.178.04"}, offered)
    assert found == {"versions": {"nvidia-fabricmanager": "580.178.04-10"}, "problems": []}


def test_every_missing_version_is_named_with_what_there_is_instead() -> None:
    found = resolve_versions({"a": "1.0", "b": "2.0", "c": ""}, {"a": ["1.1-1"]})
    assert found["problems"] == [
        "a 1.0 is in no repository; offered: 1.1-1",
        "b is in no repository (wanted: 2.0)",
        "c is in no repository",
    ]


def test_only_what_is_not_installed_just_so_is_missing() -> None:
    wanted = {"a": "1-1", "b": "2-1", "c": "", "d": ""}
    assert missing_packages(wanted, {"a": "1-1", "b": "2-2", "c": "9"}) == {"b": "2-1", "d": ""}
    assert with_versions({"b": "2-1", "d": ""}, "apt") == ["b=2-1", "d"]
    assert with_versions({"b": "2-1"}, "dnf") == ["b-2-1"]


# As apt 2.6 prints it: a new package, an upgrade, a downgrade of one that is installed.
SIMULATION = """\
Inst libcuda1 (580.178.04-1 NVIDIA:stable [amd64])
Inst nvidia-fabricmanager [580.159.03-1] (580.190.01-1 NVIDIA:stable [amd64])
Conf libcuda1 (580.178.04-1 NVIDIA:stable [amd64])
"""


def test_a_transaction_that_splits_driver_and_fabric_manager_is_seen() -> None:
    versions = simulated_versions(SIMULATION)
    assert versions == {"libcuda1": "580.178.04-1", "nvidia-fabricmanager": "580.190.01-1"}
    assert out_of_step(versions, "580.178.04", ["libcuda1", "nvidia-fabricmanager"]) == [
        "nvidia-fabricmanager 580.190.01-1"
    ]


PACKAGES = """\
Package: nvidia-driver-cuda
Version: 580.178.04-1
Depends: libcuda1 (= 580.178.04-1)

Package: libcuda1
Version: 580.178.04-1

Package: nvidia-driver-cuda
Version: 595.91.07-1
"""
PRIMARY = """\
<metadata xmlns="http://linux.duke.edu/metadata/common">
<package type="rpm"><name>nvidia-driver-cuda</name><version epoch="3" ver="580.178.04" rel="1.el9"/></package>
<package type="rpm"><name>libnvidia-nscq</name><version epoch="0" ver="580.178.04" rel="1"/></package>
</metadata>
"""
REPOMD = """\
<repomd xmlns="http://linux.duke.edu/metadata/repo">
<data type="filelists"><location href="repodata/f.xml.gz"/></data>
<data type="primary"><location href="repodata/p.xml.gz"/></data>
</repomd>
"""


def test_an_apt_index_is_read() -> None:
    assert apt_versions(PACKAGES, {"nvidia-driver-cuda"}) == {"nvidia-driver-cuda": ["580.178.04-1", "595.91.07-1"]}


def test_a_dnf_index_is_read_with_epochs() -> None:
    found = dnf_versions(PRIMARY, {"nvidia-driver-cuda", "libnvidia-nscq"})
    assert found == {"nvidia-driver-cuda": ["3:580.178.04-1.el9"], "libnvidia-nscq": ["580.178.04-1"]}
    assert primary_location(REPOMD) == "repodata/p.xml.gz"
    # what resolve_versions takes from it, and dnf is told
    resolved = resolve_versions({"nvidia-driver-cuda": "580.178.04"}, found)["versions"]
    assert with_versions(resolved, "dnf") == ["nvidia-driver-cuda-3:580.178.04-1.el9"]


def test_flat_repositories_and_those_with_components_have_their_index_elsewhere() -> None:
    flat = {"url": "http://r/cuda/", "suite": "./", "components": []}
    assert index_names(flat, "amd64") == ["http://r/cuda"]
    docker = {"url": "http://r/linux/debian", "suite": "bookworm", "components": ["stable"]}
    assert index_names(docker, "amd64") == ["http://r/linux/debian/dists/bookworm/stable/binary-amd64"]
