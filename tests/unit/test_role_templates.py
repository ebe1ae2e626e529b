"""What the roles make of facts: repositories, packages, pins and reasons to reboot, on every system, by Ansible's own
templating. Nothing is run on a host; a Debian 12 is, in tests/provision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from package_plan import locked_packages, system_key

from stack.pull import settings
from stacks import ROOT

ANSIBLE = ROOT / "ansible"
LOADER = DataLoader()
VERSION = "580.178.04"
DEBIAN = {"distribution": "Debian", "distribution_version": "12.11", "distribution_major_version": "12"}
UBUNTU = {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}
ROCKY = {"distribution": "Rocky", "distribution_version": "9.5", "distribution_major_version": "9"}
SYSTEMS: dict[str, dict[str, Any]] = {
    "debian12": {**DEBIAN, "os_family": "Debian", "distribution_release": "bookworm", "service_mgr": "systemd"},
    "ubuntu2404": {**UBUNTU, "os_family": "Debian", "distribution_release": "noble", "service_mgr": "systemd"},
    "rhel9": {**ROCKY, "os_family": "RedHat", "distribution_release": "Blue Onyx", "service_mgr": "systemd"},
}
SURVEY: dict[str, Any] = {
    "kernel": "6.1.0-40-amd64",
    "pci": [{"id": "10de:1af1", "class": "068000"}] * 6 + [{"id": "10de:20b2", "class": "030200"}] * 8,
    "packages": {},
    "driver": {},
    "nouveau_loaded": False,
    "gpu_processes": [],
}


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    init_plugin_loader([])
    filter_loader.add_directory(str(ANSIBLE / "filter_plugins"))


def loaded(path: Path) -> dict[str, Any]:
    # `unsafe` is Ansible's word for a file's one tree, read once, instead of a copy for each reader
    found: dict[str, Any] = LOADER.load_from_file(str(path), trusted_as_template=True, unsafe=True)
    return found


def scope(system: str, *roles: str, **variables: Any) -> Templar:
    """Everything that the roles see: lock, defaults, their own variables, facts, and what is given."""
    found: dict[str, Any] = dict(loaded(ANSIBLE / "provision.lock.yml"))
    for role in roles:
        found |= loaded(ANSIBLE / f"roles/{role}/defaults/main.yml") | loaded(ANSIBLE / f"roles/{role}/vars/main.yml")
    wanted = locked_packages(found["provision_lock"], system)
    found["package_sources_versions"] = {name: f"{version}-1" for name, version in wanted.items()}
    found |= {"ansible_facts": SYSTEMS[system], "inventory_hostname": "gpu1"} | variables
    return Templar(loader=LOADER, variables=found)


def value(templar: Templar, expression: str) -> Any:
    return templar.template(trust_as_template("{{ " + expression + " }}"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_facts_give_the_systems_name(system: str) -> None:
    assert system_key(SYSTEMS[system]) == system


@pytest.mark.parametrize(
    ("system", "nvidia", "key", "docker"),
    [
        ("debian12", "repos/debian12/x86_64", "3bf863cc.pub", "https://download.docker.com/linux/debian"),
        ("ubuntu2404", "repos/ubuntu2404/x86_64", "3bf863cc.pub", "https://download.docker.com/linux/ubuntu"),
        ("rhel9", "repos/rhel9/x86_64", "D42D0685.pub", "https://download.docker.com/linux/rhel/9/x86_64/stable"),
    ],
)
def test_repositories_are_those_of_the_system(system: str, nvidia: str, key: str, docker: str) -> None:
    sources = value(scope(system, "package_sources"), "__package_sources_all")
    assert [source["name"] for source in sources] == ["nvidia", "nvidia-container-toolkit", "docker"]
    assert sources[0]["url"].endswith(nvidia)
    assert sources[0]["key"].endswith(f"{nvidia}/{key}")
    assert sources[2]["url"] == docker


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_mirror_stands_for_all_of_them(system: str) -> None:
    given = {"package_sources_mirror_url": "http://m/all", "package_sources_mirror_key": "http://m/key.asc"}
    question = value(scope(system, "package_sources", **given), "__package_sources_question")
    kind = "dnf" if system == "rhel9" else "apt"
    assert [(each["url"], each["type"]) for each in question["repositories"]] == [("http://m/all", kind)]
    assert set(question["packages"]) == set(
        locked_packages(loaded(ANSIBLE / "provision.lock.yml")["provision_lock"], system)
    )


def rendered(templar: Templar, name: str) -> str:
    return str(templar.template(trust_as_template((ANSIBLE / "roles" / name).read_text())))


def test_a_source_file_is_what_apt_reads() -> None:
    templar = scope("debian12", "package_sources")
    for source in value(templar, "__package_sources_all | with_suites"):
        templar.available_variables = {**templar.available_variables, "item": source}
        lines = rendered(templar, "package_sources/templates/source.sources.j2").splitlines()
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith("#"))
        flat = source["name"] != "docker"
        assert fields["Suites"] == ("./" if flat else "bookworm")
        assert fields.get("Components") == (None if flat else "stable")
        assert fields["Signed-By"] == f"/etc/apt/keyrings/vllm-onprem-{source['name']}.asc"


def driver(system: str, **survey: Any) -> Templar:
    host = {"survey": {**SURVEY, **survey}}
    return scope(system, "nvidia_driver", __nvidia_driver_host=host, __nvidia_driver_reread=host)


@pytest.mark.parametrize(
    ("system", "headers", "packages"),
    [
        (
            "debian12",
            "linux-headers-6.1.0-40-amd64",
            {"nvidia-kernel-open-dkms", "nvidia-fabricmanager", "libnvidia-nscq"},
        ),
        (
            "ubuntu2404",
            "linux-headers-6.1.0-40-amd64",
            {"nvidia-dkms-580-open", "nvidia-fabricmanager", "nvidia-utils-580"},
        ),
        ("rhel9", "kernel-devel-6.1.0-40-amd64", {"kmod-nvidia-open-dkms", "nvidia-fabricmanager"}),
    ],
)
def test_driver_and_fabric_manager_are_one_unit_of_full_versions(system: str, headers: str, packages: set[str]) -> None:
    templar = driver(system)
    wanted = value(templar, "__nvidia_driver_wanted")
    assert packages <= set(wanted)
    assert set(wanted.values()) == {f"{VERSION}-1"}
    assert value(templar, "__nvidia_driver_headers") == headers
    assert value(templar, "__nvidia_driver_missing") == wanted


def test_without_switches_there_is_no_fabric_manager() -> None:
    wanted = value(driver("debian12", pci=[{"id": "10de:20b5", "class": "030200"}]), "__nvidia_driver_wanted")
    assert "nvidia-fabricmanager" not in wanted
    assert "nvidia-driver-cuda" in wanted


@pytest.mark.parametrize(
    ("survey", "reason"),
    [
        ({}, ""),
        ({"nouveau_loaded": True}, "nouveau holds the GPUs"),
        ({"driver": {"version": VERSION, "modules": "open"}}, ""),
        ({"driver": {"version": "580.159.03", "modules": "open"}},
         f"driver 580.159.03 (open) is loaded, {VERSION} (open) is installed"),
        ({"driver": {"version": VERSION, "modules": "proprietary"}},
         f"driver {VERSION} (proprietary) is loaded, {VERSION} (open) is installed"),
    ],
)  # fmt: skip
def test_a_reboot_has_a_reason_or_does_not_happen(survey: dict[str, Any], reason: str) -> None:
    assert value(driver("debian12", **survey), "__nvidia_driver_reboot_reason") == reason


def test_the_version_before_is_remembered_once() -> None:
    import base64  # noqa: PLC0415  only here
    import json  # noqa: PLC0415

    def after(recorded: Mapping[str, Any]) -> dict[str, Any]:
        content = base64.b64encode(json.dumps(recorded).encode()).decode()
        templar = driver("debian12")
        templar.available_variables = {**templar.available_variables, "__nvidia_driver_state": {"content": content}}
        found: dict[str, Any] = value(templar, "__nvidia_driver_remembered")
        return found

    first = after({})
    assert first["before"] is None
    assert first["now"]["version"] == VERSION
    assert after(first) == first  # again: nothing moves
    old = {"version": "580.159.03", "modules": "open", "packages": {}}
    assert after({"now": old, "before": None})["before"] == old


def test_pins_name_the_version_and_the_origin() -> None:
    pins = rendered(driver("debian12"), "nvidia_driver/templates/preferences.j2")
    assert f"Pin: version {VERSION}-*" in pins.splitlines()
    templar = scope("debian12", "package_sources", "nvidia_container_toolkit")
    text = rendered(templar, "nvidia_container_toolkit/templates/preferences.j2")
    assert 'Pin: origin "nvidia.github.io"' in text.splitlines()
    assert "Pin: version 1.20.0-*" in text.splitlines()


def test_dcgm_is_of_the_engines_cuda() -> None:
    wanted = value(scope("debian12", "nvidia_dcgm"), "__nvidia_dcgm_wanted")
    assert set(wanted) == {
        f"datacenter-gpu-manager-4-{name}" for name in ("core", "cuda13", "proprietary", "proprietary-cuda13")
    }


@pytest.mark.parametrize("gpu", [False, True])
def test_docker_options_of_a_gpu_host(gpu: bool) -> None:
    given: dict[str, Any] = {"docker_gpu": gpu, "docker_data_root": "/data" if gpu else "", "docker_version": ""}
    templar = scope("debian12", "docker", **given, __docker_before={"engine": {"config": {"dns": ["1.1.1.1"]}}})
    config = value(templar, "__docker_config")
    assert config["dns"] == ["1.1.1.1"]
    assert config["live-restore"] is True
    assert config.get("exec-opts") == (["native.cgroupdriver=cgroupfs"] if gpu else None)
    assert config.get("data-root") == ("/data" if gpu else None)
    assert value(templar, "docker_minimum_version") == ("28.0" if gpu else "")


@pytest.mark.parametrize(("restart", "containers", "now"), [
    ("never", [], False), ("idle", [], True), ("idle", ["engine"], False), ("always", ["engine"], True),
])  # fmt: skip
def test_a_running_engine_is_restarted_only_as_told(restart: str, containers: list[str], now: bool) -> None:
    engine = {"engine": {"outdated": True}}
    host = {"survey": {"gpu_containers": containers}}
    given: dict[str, Any] = {"docker_restart": restart, "__docker_now": engine, "__docker_host": host}
    assert value(scope("debian12", "docker", **given), "__docker_restart_now") is now


@pytest.mark.parametrize(
    ("values", "words", "settled"),
    [
        (["1", "0", "0", "1048576"], ["always [madvise] never", "always defer [madvise] never", "performance"], True),
        (["60", "0", "0", "1048576"], ["always [madvise] never", "always defer [madvise] never", "performance"], False),
        (["1", "0", "0", "1048576"], ["[always] madvise never", "always defer [madvise] never", "performance"], False),
        (["1", "0", "0", "1048576"], ["always [madvise] never", "always defer [madvise] never", "schedutil"], False),
    ],
)
def test_a_kernel_that_is_as_it_shall_be_is_left_alone(values: list[str], words: list[str], settled: bool) -> None:
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    given: dict[str, Any] = {
        "__host_tuning_values": {"stdout_lines": values},
        "__host_tuning_words": {"stdout_lines": words},
        "__host_tuning_governor_files": {"matched": 1, "files": [{"path": governor}]},
    }
    templar = scope("debian12", "host_tuning", **given)
    assert value(templar, "__host_tuning_word_files")[-1] == governor
    in_force = value(templar, "__host_tuning_in_force and __host_tuning_chosen == __host_tuning_choice")
    assert in_force is settled


def test_a_report_is_due_for_a_new_lock_and_for_idle_gpus_only() -> None:
    def due(before: str, processes: list[Any]) -> Any:
        host = {"survey": {"gpu_processes": processes}}
        given: dict[str, Any] = {"__node_report_host": host, "__node_report_last": {"content": before}}
        return value(scope("debian12", "node_report", **given), "__node_report_due")

    assert due("", []) is True
    assert due("", [{"name": "VLLM"}]) is False


@pytest.mark.parametrize(
    ("system", "python", "packages"),
    [
        ("debian12", "python3", ["python3-venv"]),
        ("ubuntu2404", "python3", ["python3-venv"]),
        ("rhel9", "python3.11", ["python3.11", "python3.11-pip"]),
    ],
)
def test_the_stacks_python_is_new_enough_on_each_system(system: str, python: str, packages: list[str]) -> None:
    found = scope(system, "stack")
    assert value(found, "stack_python") == python
    assert value(found, "stack_python_packages") == packages


def stack_scope(system: str, *, looking: bool = True, **variables: Any) -> Templar:
    """The stack role after release.py has answered for a host."""
    released = {
        "id": "abc", "requirements": "def", "name": "fleet", "state": "/s/stacks/fleet", "stack": "",
        "mounts": ["/nfs/m"], "folder": "/b/release", "archive": "/b/abc.tar.gz",
        "images": {"source": "registry", "archive": None},
    }  # fmt: skip
    given = {"playbook_dir": "/p", "inventory_hostname": "GPU1.example.org", "ansible_check_mode": looking}
    return scope(system, "stack", __stack_released={"stdout": json.dumps(released)}, **given, **variables)


@pytest.mark.parametrize(
    ("release", "python", "current", "asked"),
    [
        (True, True, True, "/opt/vllm-onprem/releases/abc"),
        (False, True, True, "/opt/vllm-onprem/current"),
        (True, False, True, "/opt/vllm-onprem/current"),
        (False, False, False, ""),
    ],
)
def test_a_look_asks_the_release_that_is_there(release: bool, python: bool, current: bool, asked: str) -> None:
    there = {"results": [{"stat": {"exists": exists}} for exists in (release, python, current)]}
    assert value(stack_scope("debian12", __stack_there=there), "__stack_asked") == asked
    assert value(stack_scope("debian12", looking=False, __stack_there=there), "__stack_asked").endswith("/releases/abc")


def test_of_a_host_without_a_release_the_archives_list_is_known() -> None:
    there = {"results": [{"stat": {"exists": False}}] * 3}
    found = {"rc": 0, "stdout": '{"built": true}'}
    templar = stack_scope("debian12", __stack_there=there, __stack_archive_list=found)
    assert json.loads(value(templar, "__stack_facts")) == {"archive": {"built": True}}
    assert json.loads(
        value(stack_scope("debian12", __stack_there=there, __stack_archive_list={"skipped": True}), "__stack_facts")
    ) == {"archive": None}


def test_a_hosts_entry_is_what_the_inventory_says() -> None:
    gpus = [{"uuid": "GPU-00000000", "model": "A100", "memory_mib": 81920}]
    found = value(stack_scope("debian12", stack_gpus=gpus, stack_memory_mib=2048), "__stack_hosts_entry")
    assert found == {"name": "gpu1", "gpus": gpus, "memory_mib": 2048}
    assert "memory_mib" not in value(stack_scope("debian12"), "__stack_hosts_entry")


def test_the_unit_waits_for_docker_gpus_and_the_models_disk() -> None:
    text = rendered(stack_scope("debian12"), "stack/templates/vllm-onprem-stack.service.j2")
    fields = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]
    unit = {key: entry.split() for key, entry in fields if key != "ConditionPathExists"}
    assert {"docker.service", "nvidia-fabricmanager.service", "nvidia-persistenced.service"} <= set(unit["After"])
    assert unit["Requires"] == ["docker.service"]
    assert unit["RequiresMountsFor"] == ["/opt/vllm-onprem", "/var/lib/vllm-onprem/stack", "/nfs/m"]
    assert "/s/stacks/fleet/live/compose.yaml" in [entry for key, entry in fields if key == "ConditionPathExists"]


PULL: dict[str, Any] = {
    "pull_deploy_url": "git@git.example.org:stack.git", "pull_deploy_tags": "v*", "pull_deploy_interval": "600",
    "pull_deploy_environment": {"PIP_INDEX_URL": 'https://m.example.org/a%20"b'},
}  # fmt: skip


def test_what_a_host_pulls_is_what_the_program_reads(tmp_path: Path) -> None:
    said = value(scope("debian12", "pull_deploy", **PULL), "__pull_deploy_said | to_nice_yaml")
    path = tmp_path / "pull.yaml"
    path.write_text(said)
    found = settings.load(path)
    assert (found.url, found.branch, found.tags) == ("git@git.example.org:stack.git", None, "v*")
    assert (found.host, found.interval, found.not_before) == ("gpu1", 600, None)
    # of defaults that both have
    assert found.attempts == loaded(ANSIBLE / "roles/pull_deploy/defaults/main.yml")["pull_deploy_attempts"]


def test_the_timer_starts_the_program_of_the_release_that_runs() -> None:
    templar = scope("debian12", "pull_deploy", **PULL)
    service = rendered(templar, "pull_deploy/templates/vllm-onprem-pull.service.j2").splitlines()
    program = "/opt/vllm-onprem/current/scripts/pull.py /etc/vllm-onprem/pull.yaml"
    assert f"ExecStart=/opt/vllm-onprem/current/.venv/bin/python {program}" in service
    assert r'Environment="PIP_INDEX_URL=https://m.example.org/a%%20\"b"' in service
    timer = rendered(templar, "pull_deploy/templates/vllm-onprem-pull.timer.j2").splitlines()
    assert {"OnUnitInactiveSec=600", "RandomizedDelaySec=120"} <= set(timer)
