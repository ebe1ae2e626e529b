"""Alerts about GPUs, from NVIDIA's dcgm-exporter with our own list of fields, and from the node report.

dcgm-exporter collects every 30 s: waits are a minute at least. Its last-Xid gauge changes its labels with the error and
never clears, so it is its count over 5 minutes that is watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stack.observe.rule import Alert, any_of, quoted
from stack.observe.xids import TABLE

MINUTE = 60
WHERE = "GPU {{ $labels.gpu }} ({{ $labels.UUID }}) on {{ $labels.host }}"
XIDS = "DCGM_EXP_XID_ERRORS_COUNT"
EVENTS = "DCGM_EXP_CLOCK_EVENTS_COUNT"
# Degrees Celsius at which an A100 slows itself is 89, its memory's limit 95 (nvidia-smi -q of SXM4 and PCIe cards).
GPU_HOT, MEMORY_HOT = 86, 90


def alerts(plan: Mapping[str, Any]) -> Iterator[Alert]:
    """Of the GPUs that this plan uses; none without."""
    planned = _planned(plan)
    if not planned:
        return
    yield from xid_alerts()
    yield from _ALWAYS
    for host, uuids in planned.items():
        yield _missing(host, uuids)


def _planned(plan: Mapping[str, Any]) -> dict[str | None, list[str]]:
    """UUIDs by host; None: the plan's own, where it is no fleet's."""
    found: dict[str | None, list[str]] = {}
    if plan.get("fleet"):
        fleet = plan["fleet"]
        for name, server in fleet["servers"].items():
            if name not in fleet["not_run"] and server["gpus"]:
                for host, gpus in ({server["host"]: server["gpus"]} | server.get("followers", {})).items():
                    found.setdefault(host, []).extend(gpus)
        return dict(sorted(found.items(), key=lambda item: str(item[0])))
    uuids = [uuid for engine in plan["engines"] for uuid in engine["gpus"]]
    return {None: uuids} if uuids else {}


def _missing(host: str | None, planned: list[str]) -> Alert:
    where = "" if host is None else f",host={quoted(host)}"
    seen = f"DCGM_FI_DEV_GPU_TEMP{{UUID=~{any_of(planned)}{where}}}"
    return Alert(
        "GpuMissing",
        f'(count by (host) ({seen}) or 0 * max by (host) (up{{job="dcgm"{where}}})) < {len(planned)}',
        2 * MINUTE,
        "page",
        f"{{{{ $value }}}} of {len(planned)} planned GPUs answer on {{{{ $labels.host }}}}",
        "`nvidia-smi -L`: which is gone? `dmesg | grep -i xid`; 79 is off the bus: reboot the host.",
        "the plan's own number, by UUID; dcgm-exporter collects every 30 s",
        labels={} if host is None else {"host": host},
    )


def xid_alerts() -> Iterator[Alert]:
    """One rule for each row of the table."""
    for row in TABLE:
        yield Alert(
            "GpuXid",
            f"{XIDS}{{xid=~{any_of(str(code) for code in row.codes)}}} > 0",
            0,
            row.severity,
            f"Xid {{{{ $labels.xid }}}} on {WHERE}, {{{{ $value }}}} in 5 minutes: {row.meaning}",
            row.action[0].upper() + row.action[1:] + ".",
            "once: NVIDIA's Xid catalogue says what each asks for (scripts/stack/observe/xids.py)",
            labels={"codes": " ".join(str(code) for code in row.codes)},
        )


_ALWAYS = (
    Alert(
        "GpuEccUncorrectable",
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL > 0",
        MINUTE,
        "page",
        f"{WHERE} has {{{{ $value }}}} uncorrectable memory errors since the driver was loaded",
        "Drain its engine and reset the GPU; then look at GpuRowRemapPending and GpuRowRemapFailed.",
        "one: DCGM's own health limit for volatile double bit errors",
    ),
    Alert(
        "GpuRowRemapPending",
        "DCGM_FI_DEV_ROW_REMAP_PENDING > 0",
        MINUTE,
        "ticket",
        f"{WHERE} has a row remap that waits for a reset (pending is {{{{ $value }}}})",
        "Running and new work is safe. Reset the GPU when that is convenient.",
        "any: NVIDIA's A100 memory error management",
    ),
    Alert(
        "GpuRowRemapFailed",
        "DCGM_FI_DEV_ROW_REMAP_FAILURE > 0",
        MINUTE,
        "page",
        f"{WHERE} could not remap a row of its memory (failure is {{{{ $value }}}})",
        "Drain its engine; NVIDIA's field diagnostic, then replace the GPU.",
        "any: NVIDIA's A100 memory error management, a reason to return it",
    ),
    Alert(
        "GpuNvlinkErrors",
        "increase(DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL[10m]) > 0"
        " or increase(DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL[10m]) > 0"
        " or rate(DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL[10m]) > 100",
        MINUTE,
        "ticket",
        f"the NVLinks of {WHERE} have errors ({{{{ $value | humanize }}}})",
        "`nvidia-smi nvlink -e -i {{ $labels.gpu }}`: one link or all? Engines on one GPU do not need them.",
        "DCGM's health limits: 1 replay or recovery, 100 CRC errors a second",
    ),
    Alert(
        "GpuThermalThrottle",
        f'{EVENTS}{{clock_event=~"sw_thermal|hw_thermal"}} > 0',
        2 * MINUTE,
        "page",
        f"{WHERE} slows down for heat ({{{{ $labels.clock_event }}}}, {{{{ $value }}}} samples in 5 minutes)",
        "Fans, inlet temperature, neighbours: all GPUs or one? Answers slow down meanwhile.",
        "any for 2 m: an A100 slows itself at 89 degrees C, 3 before it stops",
    ),
    Alert(
        "GpuPowerBrake",
        f'{EVENTS}{{clock_event="hw_power_brake"}} > 0',
        2 * MINUTE,
        "ticket",
        f"{WHERE} is slowed by the server's power brake ({{{{ $value }}}} samples in 5 minutes)",
        "A power supply is gone or overloaded: the server's own management log.",
        "any for 2 m; power_cap is normal under load and not watched",
    ),
    Alert(
        "GpuHot",
        f"DCGM_FI_DEV_GPU_TEMP > {GPU_HOT} or DCGM_FI_DEV_MEMORY_TEMP > {MEMORY_HOT}",
        10 * MINUTE,
        "ticket",
        f"{WHERE} has {{{{ $value }}}} degrees C for 10 minutes",
        "Cooling, before it slows down: fans, inlet temperature, dust.",
        f"{GPU_HOT} and {MEMORY_HOT} for its memory: A100s slow at 89 and 95 (nvidia-smi -q); 3 to 5 below",
    ),
    Alert(
        "NodeDrift",
        "node_provision_drift > 0",
        5 * MINUTE,
        "ticket",
        "{{ $labels.host }} departs from its lock in {{ $value }} points",
        "`cat /var/lib/vllm-onprem/node_report.json` there: a driver and a Fabric Manager of two versions end NVLink"
        " at the next start. The provision playbook puts it right.",
        "any: the lock is what was proven (ansible/roles/node_report)",
    ),
)  # fmt: skip
