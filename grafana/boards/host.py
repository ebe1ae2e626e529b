"""Host: processor, memory, pressure, disks and clock, and the engines' watchdog."""

from __future__ import annotations

from boards import names
from boards.assemble import Board, Row, scraped
from boards.panels import AnyPanel, Levels, Words, graph, number, rows
from boards.queries import HOST, Query, rate, select

# what containers mount of the host is the same disk under another name
REAL_DISK = 'fstype!~"tmpfs|overlay|squashfs|ramfs|nsfs|proc|sysfs|devtmpfs"'
# Full disks stop Docker and Prometheus alike; node-mixin warns at these shares.
DISK = Levels(0.2, 0.1, below=True)
NOT_IDLE = 'mode!="idle"'
PRESSURE = Levels(0.1, 0.4)


def host() -> Board:
    """The dashboard."""
    return Board(
        uid="vllm-host",
        title="vLLM / Host",
        description="The machines: processor, memory, disks, clock.",
        variables=scraped("node_boot_time_seconds"),
        rows=[Row("At a glance", _glance()), Row("Processor and memory", _load()), Row("Disks and clock", _disks())],
        since="now-6h",
    )


def _busy() -> str:
    return f"1 - avg by (host) ({rate('node_cpu_seconds_total', HOST, _label('mode', 'idle'))})"


def _label(name: str, value: str) -> str:
    return f'{name}="{value}"'


def memory_free() -> str:
    """Share of memory that is available, by host."""
    free = select("node_memory_MemAvailable_bytes", HOST)
    return f"{free} / {select('node_memory_MemTotal_bytes', HOST)}"


def disk_free() -> str:
    """Share of each real file system that is free."""
    free = select("node_filesystem_avail_bytes", HOST, REAL_DISK)
    return f"{free} / {select('node_filesystem_size_bytes', HOST, REAL_DISK)}"


def _glance() -> list[AnyPanel]:
    return [
        number(
            Words("Processor, busiest host", "Share of all cores that work. Engines on GPUs need one core each."),
            "percentunit", Query(f"max ({_busy()})", "busy"), levels=Levels(0.8, 0.95),
        ),
        number(
            Words("Memory available, least", "Share that programs can still have. Below a tenth the kernel begins to"
                  " kill.", "HostMemoryLow"),
            "percentunit", Query(f"min ({memory_free()})", "available"), levels=Levels(0.2, 0.1, below=True),
        ),
        number(
            Words("Disk free, fullest", "The fullest file system of all hosts.", "DiskFillingUp"),
            "percentunit", Query(f"min ({disk_free()})", "free"), levels=DISK,
        ),
        number(
            Words("Killed for memory", "Processes that the kernel killed for want of memory, in the last hour.",
                  "OomKill"),
            "short", Query(f"sum (increase({select('node_vmstat_oom_kill', HOST)}[1h]))", "killed"),
            levels=Levels(1, 1), decimals=0,
        ),
        number(
            Words("Clock error, worst", "The kernel's own bound. Certificates, logs and the windows of alerts need"
                  " clocks that agree.", "ClockNotSynchronised"),
            "s", Query(f"max ({select('node_timex_maxerror_seconds', HOST)})", "at most"),
        ),
        number(
            Words("Engines killed as wedged", "In the last hour, by the engines' own health checks. Evidence is in"
                  " evidence/<engine>/ of the stack's state folder.", "EngineWedged"),
            "short", Query(f"sum (increase({select(names.WATCHDOG_KILLS, HOST)}[1h]))", "killed"),
            levels=Levels(1, 1), decimals=0,
        ),
    ]  # fmt: skip


def _load() -> list[AnyPanel]:
    return [
        graph(
            Words("Processor", "Share of all cores, by what they do. iowait: the disk is the limit; steal: the"
                  " machine is shared."),
            "percentunit",
            [Query(f"avg by (host, mode) ({rate('node_cpu_seconds_total', HOST, NOT_IDLE)})",
                   "{{host}} {{mode}}")], stacked=True, maximum=1,
        ),
        graph(
            Words("Load", "Runnable and blocked tasks, the mean of 5 minutes. Above the number of cores: something"
                  " waits."),
            "short", [Query(select("node_load5", HOST), "{{host}}")],
        ),
        graph(
            Words("Pressure", "Share of time that some task waited for this. More than a glance at 100 % processor:"
                  " it says that somebody is held up."),
            "percentunit",
            [
                Query(f"sum by (host) ({rate(f'node_pressure_{kind}_waiting_seconds_total', HOST)})",
                      "{{host}} " + kind)
                for kind in ("cpu", "memory", "io")
            ],
            maximum=1, levels=PRESSURE,
        ),
        graph(
            Words("Memory available", "Share that programs can still have, page cache included.", "HostMemoryLow"),
            "percentunit", [Query(memory_free(), "{{host}}")], maximum=1, levels=Levels(0.2, 0.1, below=True),
        ),
        graph(
            Words("Memory in use", "Programs, shared memory and page cache. Shared memory holds the rings between"
                  " tensor-parallel workers."),
            "bytes",
            [
                Query(select(f"node_memory_{kind}_bytes", HOST), "{{host}} " + said)
                for kind, said in (("AnonPages", "programs"), ("Shmem", "shared"), ("Cached", "cache"))
            ],
        ),
        graph(
            Words("Open files", "Share of the kernel's limit."),
            "percentunit",
            [Query(f"{select('node_filefd_allocated', HOST)} / {select('node_filefd_maximum', HOST)}", "{{host}}")],
        ),
    ]  # fmt: skip


def _disks() -> list[AnyPanel]:
    return [
        rows(
            Words("File systems", "Share that is free. The model store, Docker's images and Prometheus grow.",
                  "DiskFillingUp"),
            "percentunit", Query(disk_free(), ""), {"host": "Host", "mountpoint": "Mounted at", "device": "Device"},
            width=12,
        ),
        graph(
            Words("Disk free", "Falling steadily: count the days that are left.", "DiskFillingUp"),
            "percentunit", [Query(f"min by (host, device) ({disk_free()})", "{{host}} {{device}}")], width=12,
            maximum=1, levels=DISK,
        ),
        graph(
            Words("Disk busy", "Share of time that the disk had work. A model that loads for minutes: is it this?"),
            "percentunit",
            [Query(f"max by (host, device) ({rate('node_disk_io_time_seconds_total', HOST)})", "{{host}} {{device}}")],
            maximum=1,
        ),
        graph(
            Words("Read and written", "Bytes a second, all disks of a host."),
            "Bps",
            [
                Query(f"sum by (host) ({rate('node_disk_read_bytes_total', HOST)})", "{{host}} read"),
                Query(f"sum by (host) ({rate('node_disk_written_bytes_total', HOST)})", "{{host}} written"),
            ],
        ),
        graph(
            Words("Clock offset", "Seconds that the clock is off, either way, as the kernel thinks.", "ClockSkewed"),
            "s", [Query(f"abs({select('node_timex_offset_seconds', HOST)})", "{{host}}")],
        ),
    ]  # fmt: skip
