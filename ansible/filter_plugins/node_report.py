"""The report of a node, its metrics, and in what it departs from its lock; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Clock events that slow a busy GPU (nvml.h, nvmlClocksEventReason*).
SLOWDOWNS = {0x08: "hw_slowdown", 0x20: "sw_thermal", 0x40: "hw_thermal", 0x80: "hw_power_brake"}


def lock_hash(lock: Mapping[str, Any]) -> str:
    """SHA-256 of a lock's canonical JSON."""
    return hashlib.sha256(json.dumps(lock, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def node_report(state: Mapping[str, Any], survey: Mapping[str, Any], docker: Mapping[str, Any], lock: Mapping[str, Any],
                before: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """What a node is. before: its last report, whose diagnostic holds until the lock changes."""
    links = _links(state["nvlink"] or "")
    remaps = {row["gpu_bus_id"]: row for row in state["remapped_rows"] or []}
    switches = [
        device for device in survey["pci"] if device["id"].startswith("10de:") and device["class"].startswith("0680")
    ]
    report = {
        "lock": lock_hash(lock),
        "versions": {
            "driver": survey["driver"].get("version"),
            "kernel_modules": survey["driver"].get("modules"),
            "fabric_manager": _version(state["fabric_manager"]),
            "dcgm": _version(state["dcgm"]),
            "container_toolkit": _version(state["toolkit"]),
            "docker": docker.get("ServerVersion"),
            "kernel": state["kernel"],
        },
        "services": state["services"],
        "nvswitches": len(switches),
        "gpus": [
            _gpu(row, links.get(row["uuid"], []), remaps.get(row["pci.bus_id"], {})) for row in state["gpus"] or []
        ],
        "boot_id": state["boot_id"],
        "diagnostic": _diagnostic(state),
    }
    old = before.get("diagnostic")
    if report["diagnostic"] is None and old and before.get("lock") == report["lock"]:
        report["diagnostic"] = old
    return report


def _gpu(row: Mapping[str, str], links: list[float], remap: Mapping[str, str]) -> dict[str, Any]:
    active = int(row["clocks_event_reasons.active"], 16) if row["clocks_event_reasons.active"].startswith("0x") else 0
    return {
        "uuid": row["uuid"],
        "name": row["name"],
        "pci": row["pci.bus_id"],
        "persistence": row["persistence_mode"] == "Enabled",
        "mig": row["mig.mode.current"] == "Enabled",
        "ecc": row["ecc.mode.current"] == "Enabled",
        "ecc_corrected": _number(row["ecc.errors.corrected.volatile.total"]),
        "ecc_uncorrected": _number(row["ecc.errors.uncorrected.volatile.total"]),
        "remapped_correctable": _number(remap.get("remapped_rows.correctable", "")),
        "remapped_uncorrectable": _number(remap.get("remapped_rows.uncorrectable", "")),
        "remap_pending": remap.get("remapped_rows.pending", "No") not in ("No", "0"),
        "remap_failure": remap.get("remapped_rows.failure", "No") not in ("No", "0"),
        "throttled_by": [name for bit, name in SLOWDOWNS.items() if active & bit],
        "pcie_generation": _number(row["pcie.link.gen.max"]),
        "pcie_lanes": _number(row["pcie.link.width.current"]),
        "nvlinks": len(links),
        "nvlink_gb_per_s": sum(links),
    }


def _links(text: str) -> dict[str, list[float]]:
    """Speeds (GB/s, one direction) of the active links by UUID, of `nvidia-smi nvlink -s`."""
    found: dict[str, list[float]] = {}
    uuid = ""
    for line in text.splitlines():
        if match := re.search(r"UUID: (\S+?)\)", line):
            uuid = match[1]
            found[uuid] = []
        elif match := re.search(r"Link \d+: ([\d.]+) GB/s", line):
            found[uuid].append(float(match[1]))
    return found


def _version(text: str | None) -> str | None:
    match = re.search(r"\d+\.\d+[\d.]*", text or "")
    return match[0] if match else None


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _tests(value: Any) -> Iterator[dict[str, Any]]:
    """Every test of a diagnostic, at whatever depth: DCGM 3 and 4 nest them differently."""
    if isinstance(value, Mapping):
        if "name" in value and "results" in value:
            yield dict(value)
        for each in value.values():
            yield from _tests(each)
    elif isinstance(value, list):
        for each in value:
            yield from _tests(each)


def _diagnostic(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """{level, passed, failed tests, pcie: {gpu: lowest GB/s}}; None when none was run or none could be read."""
    if not state["diag_level"] or state["diag"] is None:
        return None
    failed: list[str] = []
    pcie: dict[str, float] = {}
    tests = list(_tests(state["diag"]))
    for test in tests:
        if any(result.get("status", "").lower() == "fail" for result in test["results"]):
            failed.append(test["name"])
        # [unv] DCGM 4 gives at most 16 messages a test (DCGM issue 215): with 8 GPUs some may be missing, and are null.
        said = re.findall(
            r"GPU (\d+) (?:GPU to Host|Host to GPU) bandwidth:\s*([\d.]+) GB/s", json.dumps(test).replace("\\t", " ")
        )
        for gpu, speed in said:
            pcie[gpu] = min(pcie.get(gpu, float(speed)), float(speed))
    return {"level": state["diag_level"], "passed": bool(tests) and not failed, "failed": failed, "pcie_gb_per_s": pcie}


def drift(report: Mapping[str, Any], lock: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Everything in which a node is not what its lock and its inventory say, in words.

    wanted: gpus, nvswitches, nvlinks (a GPU), nvlink_gb_per_s, pcie_gb_per_s, services, docker (version or None).
    """
    versions = report["versions"]
    found = [f"{name}: {versions[name] or 'none'}, locked: {value}" for name, value in _locked(lock, wanted).items()
             if versions[name] != str(value)]  # fmt: skip
    found += [f"service {name} is {report['services'].get(name)}" for name in wanted["services"]
              if report["services"].get(name) != "active"]  # fmt: skip
    if wanted["gpus"] is not None and len(report["gpus"]) != int(wanted["gpus"]):
        found.append(f"{len(report['gpus'])} GPUs answer, {wanted['gpus']} expected")
    if wanted["nvswitches"] is not None and report["nvswitches"] != int(wanted["nvswitches"]):
        found.append(f"{report['nvswitches']} NVSwitches, {wanted['nvswitches']} expected")
    for gpu in report["gpus"]:
        found += [f"GPU {gpu['uuid']}: {text}" for text in _gpu_drift(gpu, wanted)]
    diagnostic = report["diagnostic"]
    if diagnostic:
        found += [f"DCGM diagnostic level {diagnostic['level']}: {name} failed" for name in diagnostic["failed"]]
        if not diagnostic["passed"] and not diagnostic["failed"]:
            found.append(f"DCGM diagnostic level {diagnostic['level']} named no test")
        low = {
            gpu: speed for gpu, speed in diagnostic["pcie_gb_per_s"].items() if speed < float(wanted["pcie_gb_per_s"])
        }
        found += [
            f"GPU {gpu}: PCIe {speed} GB/s, at least {wanted['pcie_gb_per_s']} expected" for gpu, speed in low.items()
        ]
    return found


def _locked(lock: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    locked = {
        "driver": lock["driver"]["version"],
        "kernel_modules": lock["driver"]["modules"],
        "dcgm": lock["dcgm"],
        "container_toolkit": lock["container_toolkit"],
    }
    if wanted["nvswitches"]:
        locked["fabric_manager"] = lock["driver"]["version"]
    if lock["docker"]:
        locked["docker"] = lock["docker"]
    return locked


def _gpu_drift(gpu: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    if not gpu["ecc"]:
        found.append("ECC is off")
    if gpu["ecc_uncorrected"]:
        found.append(f"{gpu['ecc_uncorrected']} uncorrected ECC errors since boot: drain it, reset it")
    if gpu["remap_pending"]:
        found.append("a row remap is pending: reset the GPU when it is idle")
    if gpu["remap_failure"]:
        found.append("a row could not be remapped: replace the GPU")
    if gpu["mig"]:
        found.append("MIG is on")
    if not gpu["persistence"]:
        found.append("persistence mode is off")
    if gpu["throttled_by"]:
        found.append("slowed down by " + ", ".join(gpu["throttled_by"]))
    if wanted["nvlinks"] is not None and gpu["nvlinks"] != int(wanted["nvlinks"]):
        found.append(f"{gpu['nvlinks']} NVLinks active, {wanted['nvlinks']} expected")
    elif wanted["nvlink_gb_per_s"] is not None and gpu["nvlink_gb_per_s"] < float(wanted["nvlink_gb_per_s"]):
        found.append(f"NVLink {gpu['nvlink_gb_per_s']} GB/s, {wanted['nvlink_gb_per_s']} expected")
    return found


def node_metrics(report: Mapping[str, Any]) -> str:
    """The report for node_exporter's textfile collector. A value that is not known is left out."""
    versions = ",".join(f'{name}="{value or ""}"' for name, value in sorted(report["versions"].items()))
    lines = [
        "# HELP node_provision_info Versions and the lock of a node.",
        "# TYPE node_provision_info gauge",
        f'node_provision_info{{lock="{report["lock"]}",{versions}}} 1',
        "# HELP node_provision_drift Departures of a node from its lock.",
        "# TYPE node_provision_drift gauge",
        f"node_provision_drift {len(report['drift'])}",
        "# HELP node_provision_gpus GPUs that answer.",
        "# TYPE node_provision_gpus gauge",
        f"node_provision_gpus {len(report['gpus'])}",
        "# HELP node_provision_nvswitches NVSwitches on the PCI bus.",
        "# TYPE node_provision_nvswitches gauge",
        f"node_provision_nvswitches {report['nvswitches']}",
    ]
    names = {"nvlinks": "active NVLinks", "ecc_uncorrected": "uncorrected ECC errors since boot",
             "remap_pending": "a row remap is pending", "remap_failure": "a row could not be remapped",
             "remapped_uncorrectable": "rows remapped after uncorrected errors"}  # fmt: skip
    for name, text in names.items():
        lines += [f"# HELP node_provision_gpu_{name} Of each GPU: {text}.", f"# TYPE node_provision_gpu_{name} gauge"]
        lines += [f'node_provision_gpu_{name}{{UUID="{gpu["uuid"]}"}} {int(gpu[name])}'
                  for gpu in report["gpus"] if gpu[name] is not None]  # fmt: skip
    if report["diagnostic"]:
        passed = report["diagnostic"]["level"] if report["diagnostic"]["passed"] else 0
        lines += ["# HELP node_provision_diagnostic_level Level of DCGM's diagnostic that was passed, 0 for failed.",
                  "# TYPE node_provision_diagnostic_level gauge",
                  f"node_provision_diagnostic_level {passed}"]  # fmt: skip
    return "\n".join(lines) + "\n"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"lock_hash": lock_hash, "node_report": node_report, "drift": drift, "node_metrics": node_metrics}
