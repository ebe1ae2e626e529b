"""GPU: what dcgm-exporter says, by host and GPU. Its counters for errors are off by default: ship our own list."""

from __future__ import annotations

from boards.assemble import Board, Row, scraped
from boards.panels import AnyPanel, Levels, Words, graph, number
from boards.queries import HOST, Query, rate, select

GPU = "{{host}} GPU {{gpu}}"
# A100 (nvidia-smi -q): 85 degrees at most in operation, slows down at 89; its memory 95.
HEAT = Levels(80, 85)
MEMORY_HEAT = Levels(85, 95)
ANY = Levels(1, 1)


def gpu() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-gpu",
        title="vLLM / GPU",
        description="NVIDIA GPUs as dcgm-exporter sees them: work, memory, heat, power, errors.",
        variables=scraped("DCGM_FI_DEV_GPU_TEMP"),
        rows=[
            Row("At a glance", _glance()),
            Row("Work", _work()),
            Row("Heat and power", _heat()),
            Row("Errors", _errors()),
        ],
    )


def _each(metric: str) -> Query:
    return Query(select(metric, HOST), GPU)


def _used() -> str:
    used, free = select("DCGM_FI_DEV_FB_USED", HOST), select("DCGM_FI_DEV_FB_FREE", HOST)
    return f"{used} / ({used} + {free})"


def _glance() -> list[AnyPanel]:
    return [
        number(
            Words("GPUs", "GPUs that answer. Fewer than planned: one fell off the bus; `nvidia-smi -L` on each host.",
                  "GpuMissing"),
            "short", Query(f"count ({select('DCGM_FI_DEV_GPU_TEMP', HOST)})", "GPUs"), decimals=0,
        ),
        number(
            Words("Xid errors", "Errors that the driver reported in the last 5 minutes; `dmesg | grep -i xid` has the"
                  " number, NVIDIA's catalogue what it means.", "GpuXid"),
            "short", Query(f"sum ({select('DCGM_EXP_XID_ERRORS_COUNT', HOST)})", "Xids"), levels=ANY, decimals=0,
        ),
        number(
            Words("Hottest", "A100: 85 degrees at most in operation; at 89 it slows down.", "GpuHot"),
            "celsius", Query(f"max ({select('DCGM_FI_DEV_GPU_TEMP', HOST)})", "hottest"), levels=HEAT,
        ),
        number(
            Words("Power", "All GPUs together."),
            "watt", Query(f"sum ({select('DCGM_FI_DEV_POWER_USAGE', HOST)})", "power"),
        ),
        number(
            Words("Uncorrectable ECC errors", "Since the driver was loaded. Any: the host's GPU needs a reset, and"
                  " watching.", "GpuEccUncorrectable"),
            "short", Query(f"sum ({select('DCGM_FI_DEV_ECC_DBE_VOL_TOTAL', HOST)})", "errors"), levels=ANY,
            decimals=0,
        ),
        number(
            Words("Rows to remap", "GPUs that wait for a reset to remap a broken row, or could not: those go back to"
                  " the vendor.", "GpuRowRemapPending"),
            "short",
            Query(
                f"sum ({select('DCGM_FI_DEV_ROW_REMAP_PENDING', HOST)})"
                f" + sum ({select('DCGM_FI_DEV_ROW_REMAP_FAILURE', HOST)})", "GPUs",
            ),
            levels=ANY, decimals=0,
        ),
    ]  # fmt: skip


def _work() -> list[AnyPanel]:
    return [
        graph(
            Words("Busy", "Share of time with any kernel at work. 100 % is not full use: the tokens on the Serving"
                  " dashboard are."),
            "percentunit", [Query(f"{select('DCGM_FI_DEV_GPU_UTIL', HOST)} / 100", GPU)], maximum=1,
        ),
        graph(
            Words("Memory busy", "Share of time with memory read or written: high while tokens are decoded."),
            "percentunit", [Query(f"{select('DCGM_FI_DEV_MEM_COPY_UTIL', HOST)} / 100", GPU)], maximum=1,
        ),
        graph(
            Words("Memory in use", "Of the memory that programs may use. vLLM takes gpu_memory_utilization at its"
                  " start and keeps it; the KV cache is on the Serving dashboard."),
            "percentunit", [Query(_used(), GPU)], maximum=1,
        ),
        graph(
            Words("NVLink traffic", "Growth of the driver's counter, in its own unit: compare GPUs with each other."
                  " Those of one engine are alike."),
            "none", [Query(rate("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", HOST), GPU)], width=12,
        ),
        graph(
            Words("Throttled", "Share of time that clocks were held back, for heat or for power. For heat: its cooling,"
                  " before it shows in the tokens.", "GpuThermalThrottle"),
            "percentunit", [
                Query(f"{rate(f'DCGM_FI_DEV_{kind}_VIOLATION', HOST)} / 1e6", f"{GPU} {said}")
                for kind, said in (("THERMAL", "heat"), ("POWER", "power"))
            ],
            width=12,
        ),
    ]  # fmt: skip


def _heat() -> list[AnyPanel]:
    return [
        graph(
            Words("Temperature", "One GPU above its neighbours: its cooling. All of them: the room's.", "GpuHot"),
            "celsius", [_each("DCGM_FI_DEV_GPU_TEMP")], levels=HEAT,
        ),
        graph(
            Words("Memory temperature", "HBM throttles before the GPU's core does.", "GpuHot"),
            "celsius", [_each("DCGM_FI_DEV_MEMORY_TEMP")], levels=MEMORY_HEAT,
        ),
        graph(
            Words("Power by GPU", "At the power limit the clocks fall: that is normal under full load."),
            "watt", [_each("DCGM_FI_DEV_POWER_USAGE")],
        ),
        graph(
            Words("Clock", "Of the streaming multiprocessors, in MHz. Lower than the neighbours': throttled."),
            "none", [_each("DCGM_FI_DEV_SM_CLOCK")], width=12,
        ),
        graph(
            Words("Why clocks are held back", "Samples of the last 5 minutes by reason. power_cap and gpu_idle are"
                  " normal. hw_thermal, sw_thermal, hw_power_brake: cooling or power supply.", "GpuThermalThrottle"),
            "short",
            [Query(f"sum by (host, gpu, clock_event) ({select('DCGM_EXP_CLOCK_EVENTS_COUNT', HOST)})",
                   GPU + " {{clock_event}}")],
            width=12,
        ),
    ]  # fmt: skip


def _errors() -> list[AnyPanel]:
    return [
        graph(
            Words("Xid errors by GPU", "Counted over 5 minutes. 79: off the bus, reboot. 48, 64, 95: reset the GPU."
                  " 94: restart the engine. 13, 31, 43: the program's own.", "GpuXid"),
            "short", [Query(f"sum by (host, gpu, xid) ({select('DCGM_EXP_XID_ERRORS_COUNT', HOST)})",
                            GPU + " Xid {{xid}}")],
        ),
        graph(
            Words("ECC errors", "Since the driver was loaded. Corrected ones are common; uncorrectable ones end"
                  " processes.", "GpuEccUncorrectable"),
            "short", [
                Query(select("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", HOST), f"{GPU} corrected"),
                Query(select("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", HOST), f"{GPU} uncorrectable"),
            ],
        ),
        graph(
            Words("Remapped rows", "Rows of memory that were replaced, for good. 512 are the end."),
            "short", [
                Query(select("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", HOST), f"{GPU} corrected"),
                Query(select("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", HOST), f"{GPU} uncorrectable"),
            ],
        ),
        graph(
            Words("NVLink errors", "Any replay or recovery: reseat or replace. CRC errors count from 100 a second on.",
                  "GpuNvlinkErrors"),
            "ops", [
                Query(f"sum by (host, gpu) ({rate(f'DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL', HOST)})",
                      f"{GPU} {said}")
                for kind, said in (("CRC_FLIT", "CRC"), ("REPLAY", "replay"), ("RECOVERY", "recovery"))
            ],
            width=12,
        ),
        graph(
            Words("PCIe replays", "Packets sent again, a second. More than a few in a minute: slot, riser or cable."),
            "ops", [Query(rate("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", HOST), GPU)], width=12,
        ),
    ]  # fmt: skip
