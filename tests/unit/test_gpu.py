"""GPU hosts: modes, driver branches, CDI. What nvidia-smi, the driver and the toolkit say here is constructed, but
for one recording.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.errors import StackError
from stack.gpu import cdi, cuda, state
from stack.gpu.state import GpuState
from stack.images.pins import load_pins
from stacks import ROOT
from unit.test_hardware import A, B, FakeSmi, nvidia_smi  # noqa: F401 - a fixture

# Modes


def test_the_modes_of_each_gpu_are_read(nvidia_smi: FakeSmi) -> None:  # noqa: F811
    nvidia_smi(
        states=f"{A}, Disabled, Default, 580.95.05, Enabled\n{B}, [N/A], Exclusive_Process, 580.95.05, Disabled\n"
    )
    states = state.read_states()
    assert states == {
        A: GpuState(A, "Disabled", "Default", "580.95.05", "Enabled"),
        B: GpuState(B, "[N/A]", "Exclusive_Process", "580.95.05", "Disabled"),
    }
    (warning,) = state.warnings(states.values())
    assert B in warning
    assert A not in warning


def test_an_answer_of_another_shape_is_an_error_with_its_line(nvidia_smi: FakeSmi) -> None:  # noqa: F811
    nvidia_smi(states=f"{A}, Disabled\n")
    with pytest.raises(StackError, match=f"{A}, Disabled"):
        state.read_states()


@pytest.mark.parametrize(
    ("mig", "mode", "advice"),
    [
        ("Disabled", "Default", None),
        ("[N/A]", "Default", None),
        ("Enabled", "Default", f"nvidia-smi -i {A} -mig 0"),
        ("Disabled", "Exclusive_Process", f"nvidia-smi -i {A} -c DEFAULT"),
        ("Disabled", "Prohibited", f"nvidia-smi -i {A} -c DEFAULT"),
    ],
)
def test_a_mode_that_keeps_an_engine_from_its_gpu_is_told_with_the_command(
    mig: str, mode: str, advice: str | None
) -> None:
    told = [str(problem) for problem in state.mode_problems([GpuState(A, mig, mode, "580.95.05")])]
    assert [advice in line for line in told if advice] == ([True] if advice else [])
    assert len(told) == (advice is not None)


def test_device_numbers_are_what_the_kernel_module_says(tmp_path: Path) -> None:
    for bus, uuid, minor in (("0000:07:00.0", A, 2), ("0000:0f:00.0", B, 0)):
        (tmp_path / bus).mkdir()
        text = f"Model: \t\t NVIDIA A100\nGPU UUID: \t {uuid}\nBus Location: \t {bus}\nDevice Minor: \t {minor}\n"
        (tmp_path / bus / "information").write_text(text)
    assert state.device_minors(tmp_path) == {A: 2, B: 0}
    assert state.device_minors(tmp_path / "no-module") == {}


# A host with an H200, driver 580.159.04, as its kernel module says it: recorded.
H200 = (
    "Model: \t\t NVIDIA H200\nIRQ:   \t\t 41\nGPU UUID: \t GPU-1953eb06-880a-3f31-b529-79dfc362bdcc\n"
    "Video BIOS: \t 96.00.a5.00.1a\nBus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\n"
    "Bus Location: \t 0000:00:06.0\nDevice Minor: \t 0\nGPU Firmware: \t 580.159.04\nGPU Excluded:\t No\n"
)


def test_device_numbers_are_read_from_what_a_real_module_says(tmp_path: Path) -> None:
    (tmp_path / "0000:00:06.0").mkdir()
    (tmp_path / "0000:00:06.0/information").write_text(H200)
    assert state.device_minors(tmp_path) == {"GPU-1953eb06-880a-3f31-b529-79dfc362bdcc": 0}


# Drivers


@pytest.mark.parametrize(
    ("major", "driver", "fits"),
    [
        (13, "580.65.06", True),
        (13, "579.99", False),
        (13, "575.57.08", False),
        (13, "620.10.01", True),
        (12, "525.60.13", True),
        (12, "470.82.01", False),
        (12, "580.95.05", True),
        (None, "470.82.01", True),
        (99, "470.82.01", True),
        (13, "unknown", False),
    ],
)
def test_an_image_needs_the_driver_branch_of_its_cuda(major: int | None, driver: str, fits: bool) -> None:
    assert (list(cuda.problems(major, [driver, driver], "image:1")) == []) is fits


@pytest.mark.parametrize(
    ("environment", "major"),
    [
        (["CUDA_VERSION=13.0.2"], 13),
        (["NVARCH=x86_64", "CUDA_VERSION=12.9.1"], 12),
        (["CUDA_VERSION="], None),
        (["PATH"], None),
        ([], None),
        (None, None),
    ],
)
def test_an_image_says_its_cuda_itself(environment: list[str] | None, major: int | None) -> None:
    assert cuda.major_in(environment) == major


# CDI


def specification(devices: dict[str, list[str]], kind: str = "nvidia.com/gpu") -> dict[str, Any]:
    """device -> its device nodes, as nvidia-ctk writes them."""
    return {
        "cdiVersion": "0.5.0",
        "kind": kind,
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [{"path": path} for path in paths]}}
            for name, paths in devices.items()
        ],
        "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]},
    }


def told(tmp_path: Path, wanted: list[str], minors: dict[str, int] | None = None) -> list[str]:
    info = {"ServerVersion": "28.5.1", "CDISpecDirs": [str(tmp_path / "etc"), str(tmp_path / "run")]}
    return [str(problem) for problem in cdi.problems(wanted, info, minors or {})]


@pytest.fixture
def specifications(tmp_path: Path) -> Path:
    for folder in ("etc", "run"):
        (tmp_path / folder).mkdir()
    devices = {"0": ["/dev/nvidia0", "/dev/dri/card1"], A: ["/dev/nvidia0", "/dev/dri/card1"], "all": ["/dev/nvidia0"]}
    (tmp_path / "run/nvidia.yaml").write_text(yaml.safe_dump(specification(devices)))
    return tmp_path


def test_a_gpu_that_is_in_the_specification_is_fine(specifications: Path) -> None:
    assert told(specifications, [A], {A: 0}) == []
    assert told(specifications, [A]) == []


def test_a_gpu_that_came_after_the_specification_is_named_with_the_command(specifications: Path) -> None:
    (line,) = told(specifications, [A, B])
    assert B in line
    assert A not in line
    assert "nvidia-ctk cdi generate" in line


def test_gpus_that_were_renumbered_are_refused_and_not_mixed_up(specifications: Path) -> None:
    (line,) = told(specifications, [A], {A: 3})
    assert "/dev/nvidia3 now and /dev/nvidia0" in line


def test_the_later_folder_wins_and_other_kinds_and_broken_files_do_not_count(specifications: Path) -> None:
    (specifications / "etc/old.json").write_text(json.dumps(specification({A: ["/dev/nvidia5"]})))
    (specifications / "run/net.yaml").write_text(yaml.safe_dump(specification({B: []}, kind="vendor.com/net")))
    (specifications / "run/broken.yaml").write_text("{")
    (specifications / "run/list.json").write_text("[]")
    (specifications / "run/notes.txt").write_text("kind: nvidia.com/gpu")
    assert told(specifications, [A], {A: 0}) == []
    assert len(told(specifications, [B])) == 1


@pytest.mark.parametrize(
    ("info", "advice"),
    [
        ({"ServerVersion": "20.10.24+dfsg1"}, "20.10.24"),
        ({"ServerVersion": "27.3.1", "CDISpecDirs": []}, '"cdi": true'),
        ({"ServerVersion": "27.3.1", "CDISpecDirs": None}, '"cdi": true'),
    ],
)
def test_a_docker_without_cdi_is_told_what_to_do(info: dict[str, Any], advice: str) -> None:
    (line,) = [str(problem) for problem in cdi.problems([A], info, {})]
    assert advice in line


def test_a_device_is_named_by_its_uuid() -> None:
    assert cdi.uuid_of(f"nvidia.com/gpu={A}") == cdi.uuid_of(A) == A


def test_the_pinned_image_has_a_cuda_that_the_table_knows() -> None:
    assert load_pins(ROOT).vllm["cuda"].cuda in (None, *cuda.LOWEST_BRANCH)
    assert load_pins(ROOT).vllm["cpu"].cuda is None
