"""The report of a node, its metrics, and every way in which a node departs from its lock."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from node_report import drift, lock_hash, node_metrics, node_report

LOCK: dict[str, Any] = {
    "driver": {"version": "580.178.04", "modules": "open"},
    "container_toolkit": "1.20.0",
    "dcgm": "4.6.1",
    "docker": None,
    "engine_cuda": 13,
}
WANTED: dict[str, Any] = {
    "gpus": 2,
    "nvswitches": 6,
    "nvlinks": 12,
    "nvlink_gb_per_s": 300,
    "pcie_gb_per_s": 21,
    "services": ["nvidia-fabricmanager", "docker"],
}
# Constructed: two of the eight GPUs, in the forms of nvidia-smi, nv-fabricmanager, dcgmi and nvidia-ctk.
GPU = {
    "index": "0",
    "uuid": "GPU-0",
    "pci.bus_id": "00000000:07:00.0",
    "name": "NVIDIA A100-SXM4-80GB",
    "driver_version": "580.178.04",
    "persistence_mode": "Enabled",
    "mig.mode.current": "Disabled",
    "ecc.mode.current": "Enabled",
    "ecc.errors.corrected.volatile.total": "0",
    "ecc.errors.uncorrected.volatile.total": "0",
    "clocks_event_reasons.active": "0x0000000000000001",
    "pcie.link.gen.max": "4",
    "pcie.link.width.current": "16",
}
REMAP = {
    "gpu_bus_id": "00000000:07:00.0",
    "remapped_rows.correctable": "0",
    "remapped_rows.uncorrectable": "1",
    "remapped_rows.pending": "No",
    "remapped_rows.failure": "No",
}
LINKS = "GPU {0}: NVIDIA A100-SXM4-80GB (UUID: GPU-{0})\n" + "".join(f"\t Link {n}: 25 GB/s\n" for n in range(12))
DIAGNOSTIC = {
    "DCGM Diagnostic": {
        "test_categories": [
            {
                "category": "Integration",
                "tests": [
                    {
                        "name": "pcie",
                        "results": [
                            {"entity_id": 0, "status": "Pass", "info": ["GPU 0 GPU to Host bandwidth:\t\t24.02 GB/s"]},
                            {"entity_id": 1, "status": "Pass", "info": ["GPU 1 Host to GPU bandwidth:\t\t25.93 GB/s"]},
                        ],
                    }
                ],
            }
        ]
    }
}


def state() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "gpus": [GPU, {**GPU, "index": "1", "uuid": "GPU-1", "pci.bus_id": "00000000:0F:00.0"}],
            "remapped_rows": [REMAP, {**REMAP, "gpu_bus_id": "00000000:0F:00.0"}],
            "nvlink": LINKS.format(0) + LINKS.format(1),
            "fabric_manager": "\n\tFabric Manager version is : 580.178.04\n",
            "dcgm": "\ndcgmi  version: 4.6.1\n",
            "toolkit": "NVIDIA Container Toolkit CLI version 1.20.0\ncommit: x",
            "services": {"nvidia-fabricmanager": "active", "docker": "active"},
            "kernel": "6.1.0-40-amd64",
            "boot_id": "b",
            "diag_level": 2,
            "diag": DIAGNOSTIC,
        }
    )


SURVEY: dict[str, Any] = {
    "driver": {"version": "580.178.04", "modules": "open"},
    "pci": [{"id": "10de:1af1", "class": "068000"}] * 6 + [{"id": "10de:20b2", "class": "030200"}] * 2,
}


def report(before: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return node_report({**state(), **changes}, SURVEY, {"ServerVersion": "28.5.2"}, LOCK, before or {})


def test_a_good_node_has_no_drift_and_all_its_facts() -> None:
    found = report()
    assert drift(found, LOCK, WANTED) == []
    assert found["versions"] == {
        "driver": "580.178.04",
        "kernel_modules": "open",
        "fabric_manager": "580.178.04",
        "dcgm": "4.6.1",
        "container_toolkit": "1.20.0",
        "docker": "28.5.2",
        "kernel": "6.1.0-40-amd64",
    }
    assert found["gpus"][0]["nvlink_gb_per_s"] == 300
    assert found["diagnostic"] == {"level": 2, "passed": True, "failed": [], "pcie_gb_per_s": {"0": 24.02, "1": 25.93}}


def gpu(name: str, value: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["gpus"][0].update({name: value})


def remap(name: str, value: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["remapped_rows"][0].update({name: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state["gpus"].pop(), "1 GPUs answer, 2 expected"),
        (gpu("ecc.errors.uncorrected.volatile.total", "3"), "3 uncorrected ECC errors"),
        (gpu("ecc.mode.current", "Disabled"), "ECC is off"),
        (gpu("mig.mode.current", "Enabled"), "MIG is on"),
        (gpu("persistence_mode", "Disabled"), "persistence mode is off"),
        (gpu("clocks_event_reasons.active", "0x0000000000000048"), "slowed down by hw_slowdown, hw_thermal"),
        (remap("remapped_rows.pending", "Yes"), "a row remap is pending"),
        (remap("remapped_rows.failure", "Yes"), "a row could not be remapped"),
        (lambda state: state.update(nvlink=state["nvlink"].replace("Link 3: 25 GB/s", "Link 3: <inactive>", 1)),
         "GPU-0: 11 NVLinks active, 12 expected"),
        (lambda state: state.update(nvlink=state["nvlink"].replace("Link 3: 25 GB/s", "Link 3: 12.5 GB/s", 1)),
         "NVLink 287.5 GB/s, 300 expected"),
        (lambda state: state.update(fabric_manager="Fabric Manager version is : 580.159.03"),
         "fabric_manager: 580.159.03, locked: 580.178.04"),
        (lambda state: state.update(dcgm=None), "dcgm: none, locked: 4.6.1"),
        (lambda state: state["services"].update({"docker": "failed"}), "service docker is failed"),
        (lambda state: state["diag"]["DCGM Diagnostic"]["test_categories"][0]["tests"][0]["results"][1].update(
            status="Fail"),
         "DCGM diagnostic level 2: pcie failed"),
        (lambda state: state["diag"]["DCGM Diagnostic"]["test_categories"][0]["tests"][0]["results"][0].update(
            info=["GPU 0 GPU to Host bandwidth:\t\t12.02 GB/s"]), "GPU 0: PCIe 12.02 GB/s, at least 21 expected"),
        (lambda state: state.update(diag={"DCGM Diagnostic": {}}), "named no test"),
    ],
)  # fmt: skip
def test_each_departure_is_named_alone(change: Callable[[dict[str, Any]], None], words: str) -> None:
    changed = state()
    change(changed)
    found = drift(node_report(changed, SURVEY, {}, LOCK, {}), LOCK, WANTED)
    assert len(found) == 1
    assert words in found[0]


def test_a_dead_driver_is_drift_and_no_crash() -> None:
    found = report(gpus=None, remapped_rows=None, nvlink=None, diag=None)
    assert drift(found, LOCK, WANTED) == ["0 GPUs answer, 2 expected"]


def test_a_diagnostic_holds_until_the_lock_changes() -> None:
    first = report()
    later = report(first, diag_level=0, diag=None)
    assert later["diagnostic"] == first["diagnostic"]
    other = {**first, "lock": lock_hash({**LOCK, "dcgm": "4.7.0"})}
    assert report(other, diag_level=0, diag=None)["diagnostic"] is None


def test_the_lock_hash_depends_on_what_is_in_it_and_on_nothing_else() -> None:
    assert lock_hash(LOCK) == lock_hash(dict(reversed(LOCK.items())))
    assert lock_hash(LOCK) != lock_hash({**LOCK, "dcgm": "4.7.0"})


def test_metrics_are_an_exposition_with_every_gpu() -> None:
    lines = node_metrics({**report(), "drift": ["x"]}).splitlines()
    assert "node_provision_drift 1" in lines
    assert 'node_provision_gpu_nvlinks{UUID="GPU-1"} 12' in lines
    assert "node_provision_diagnostic_level 2" in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert all(len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0 for line in samples)
