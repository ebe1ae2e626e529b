"""The hosts file, and the GPUs that a stand-in for nvidia-smi reports (its output is constructed)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.errors import InputError, StackError
from stack.hardware import IDLE_MEMORY_MIB, Host, find_gpus, load_hosts, save_hosts
from unit import given

A, B = "GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000"
FakeSmi = Callable[..., None]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSmi:
    """Puts an nvidia-smi on PATH. gpus: lines of uuid, name, memory.total, memory.used; apps: uuids in use;
    states: lines of uuid, mig.mode.current, compute_mode, driver_version, persistence_mode.
    """

    def put(gpus: str = "", apps: str = "", message: str = "", code: int = 0, states: str = "") -> None:
        (tmp_path / "gpus").write_text(gpus)
        (tmp_path / "states").write_text(states)
        (tmp_path / "apps").write_text(apps)
        (tmp_path / "message").write_text(message)
        script = tmp_path / "nvidia-smi"
        script.write_text(
            "#!/bin/sh\n"
            f"cd '{tmp_path}' || exit 99\n"
            f"[ {code} = 0 ] || {{ cat message; exit {code}; }}\n"
            '[ "$2" = --format=csv,noheader,nounits ] || exit 98\n'
            'case "$1" in\n'
            "  --query-compute-apps=gpu_uuid) cat apps ;;\n"
            "  --query-gpu=uuid,name,memory.total,memory.used) cat gpus ;;\n"
            "  --query-gpu=uuid,mig.mode.current,compute_mode,driver_version,persistence_mode) cat states ;;\n"
            "  *) exit 97 ;;\n"
            "esac\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def line(uuid: str, used: int, total: int = 81920, name: str = "NVIDIA A100-SXM4-80GB") -> str:
    return f"{uuid}, {name}, {total}, {used}\n"


def found() -> tuple[list[str], list[str]]:
    """(idle, busy) by uuid."""
    idle, busy = find_gpus()
    return [gpu.uuid for gpu in idle], [gpu.uuid for gpu in busy]


def test_a_gpu_with_a_process_or_with_memory_in_use_is_busy(nvidia_smi: FakeSmi) -> None:
    nvidia_smi(line(A, 4) + line(B, 4))
    assert found() == ([A, B], [])
    nvidia_smi(line(A, 4) + line(B, 4), apps=f"{A}\n{A}\n")
    assert found() == ([B], [A])
    nvidia_smi(line(A, IDLE_MEMORY_MIB) + line(B, IDLE_MEMORY_MIB + 1))
    assert found() == ([A], [B])


def test_a_gpu_is_known_by_what_the_driver_says(nvidia_smi: FakeSmi) -> None:
    nvidia_smi(line(A, 0, total=24564, name="NVIDIA GeForce RTX 4090"))
    ((gpu,), _) = find_gpus()
    assert (gpu.uuid, gpu.model, gpu.memory_mib) == (A, "NVIDIA GeForce RTX 4090", 24564)


def test_no_device_is_no_gpu(nvidia_smi: FakeSmi) -> None:
    nvidia_smi(message="No devices were found", code=6)
    assert find_gpus() == ((), ())


def test_no_nvidia_smi_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ((), ())


def test_a_driver_that_does_not_work_is_an_error_in_its_own_words(nvidia_smi: FakeSmi) -> None:
    nvidia_smi(message="couldn't communicate with the NVIDIA driver", code=9)
    with pytest.raises(StackError, match=r"failed \(9\): couldn't communicate with the NVIDIA driver"):
        find_gpus()


@pytest.mark.parametrize(
    "odd",
    [
        f"{A}, NVIDIA GB10, [N/A], [N/A]\n",
        f"{A}, NVIDIA A100-SXM4-80GB, 81920, [GPU requires reset]\n",
        "WARNING: infoROM is corrupted at gpu 0000:03:00.0\n",
        "0, NVIDIA A100-SXM4-80GB, 81920, 4\n",
    ],
)
def test_a_gpu_that_the_driver_cannot_tell_about_is_an_error_with_its_line(nvidia_smi: FakeSmi, odd: str) -> None:
    nvidia_smi(line(B, 4) + odd)
    with pytest.raises(StackError, match=re.escape(odd.strip())):
        find_gpus()


# The hosts file


def test_hosts_that_were_saved_are_read_back(tmp_path: Path) -> None:
    hosts = (Host(name="node-a", gpus=given.gpus(2)), Host(name="node-b"))
    save_hosts(tmp_path / "deep/er/hosts.yaml", hosts)
    assert load_hosts(tmp_path / "deep/er/hosts.yaml") == hosts


def gpu(uuid: str) -> str:
    return f"{{uuid: {uuid}, model: A100, memory_mib: 81920}}"


@pytest.mark.parametrize(
    ("content", "wheres"),
    [
        ("hosts: []", ["hosts"]),
        ("hosts: [{name: a}, {name: b}, {name: a}]", ["hosts[2].name"]),
        (f"hosts: [{{name: a, gpus: [{gpu(A)}]}}, {{name: b, gpus: [{gpu(A)}]}}]", ["hosts[1].gpus[0].uuid"]),
        (f"hosts: [{{name: a, gpus: [{gpu(A)}, {gpu(A)}]}}]", ["hosts[0].gpus[1].uuid"]),
        (f"hosts: [{{name: a, gpus: [{gpu('0')}]}}]", ["hosts[0].gpus[0].uuid"]),
        (f"hosts: [{{name: a, gpus: [{{uuid: {A}}}]}}]", ["hosts[0].gpus[0].model", "hosts[0].gpus[0].memory_mib"]),
        ("hosts: [{name: A, adress: 10.0.0.1}]", ["hosts[0].name", "hosts[0].adress"]),
        ("nodes: []", ["hosts", "nodes"]),
    ],
)
def test_a_wrong_hosts_file_is_refused_at_every_place(tmp_path: Path, content: str, wheres: list[str]) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        load_hosts(path)
    assert given.wheres(error.value) == wheres
