"""The node's own report: no drift from the lock, and node_exporter can read it."""

from __future__ import annotations

from typing import Any

from node_report import lock_hash


def test_the_node_is_what_its_lock_says(report: dict[str, Any], lock: dict[str, Any]) -> None:
    assert report["drift"] == []
    assert report["lock"] == lock_hash(lock)


def test_the_report_is_of_this_boot(host: Any, report: dict[str, Any]) -> None:
    assert report["boot_id"] == host.file("/proc/sys/kernel/random/boot_id").content_string.strip()


def test_dcgms_diagnostic_was_passed(report: dict[str, Any]) -> None:
    assert report["diagnostic"]["passed"] is True


def test_no_gpu_has_memory_errors(report: dict[str, Any]) -> None:
    bad = [
        gpu["uuid"] for gpu in report["gpus"] if gpu["ecc_uncorrected"] or gpu["remap_pending"] or gpu["remap_failure"]
    ]
    assert bad == []


def test_node_exporter_can_read_it(host: Any, report: dict[str, Any]) -> None:
    text = host.file("/var/lib/node_exporter/textfile/vllm_onprem_node.prom").content_string
    assert f"node_provision_gpus {len(report['gpus'])}" in text.splitlines()
    assert text.endswith("\n")
