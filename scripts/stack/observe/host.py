"""Alerts about a host: its disks, memory, clock, and what the kernel killed."""

from __future__ import annotations

from stack.observe.rule import Alert

MINUTE = 60
_REAL = 'fstype!~"tmpfs|overlay|squashfs|ramfs|iso9660|nsfs|fuse.*"'
_FREE = f"node_filesystem_avail_bytes{{{_REAL}}} / node_filesystem_size_bytes{{{_REAL}}}"

ALERTS = (
    Alert(
        "HostDown",
        'max by (host) (up{job=~"node|vllm|dcgm|cadvisor"}) == 0',
        MINUTE,
        "page",
        "nothing on {{ $labels.host }} answers Prometheus (up is {{ $value }})",
        "Is it on, and reachable? Alerts about its engines are silenced meanwhile, and only those.",
        "4 scrapes in a row of everything that runs on it",
        about="host",
    ),
    Alert(
        "DiskFillingUp",
        f"{_FREE} < 0.10",
        10 * MINUTE,
        "ticket",
        "{{ $labels.mountpoint }} on {{ $labels.host }} has {{ $value | humanizePercentage }} free",
        "Models, images and logs: `du -xhd1` there, `docker system df`.",
        "10 % for 10 m: own choice; a model is larger than what is left",
    ),
    Alert(
        "DiskFull",
        f"{_FREE} < 0.03",
        MINUTE,
        "page",
        "{{ $labels.mountpoint }} on {{ $labels.host }} has {{ $value | humanizePercentage }} free",
        "Containers cannot log, Prometheus cannot write. Free some now: old models first.",
        "3 %: kubernetes-mixin's NodeFilesystemAlmostOutOfSpace",
    ),
    Alert(
        "HostMemoryLow",
        "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.05",
        5 * MINUTE,
        "ticket",
        "{{ $labels.host }} has {{ $value | humanizePercentage }} of its memory left",
        "The kernel kills an engine next. `docker stats --no-stream` shows who has it.",
        "5 %: own choice; node-mixin's NodeMemoryHighUtilization is at 10 %",
    ),
    Alert(
        "OomKill",
        "increase(node_vmstat_oom_kill[15m]) > 0",
        0,
        "ticket",
        "the kernel of {{ $labels.host }} killed {{ $value | humanize }} processes for memory in 15 minutes",
        "`dmesg | grep -i 'killed process'` names them.",
        "once: nothing here is meant to be killed",
    ),
    Alert(
        "ClockNotSynchronised",
        "min_over_time(node_timex_sync_status[5m]) == 0 and node_timex_maxerror_seconds >= 16",
        10 * MINUTE,
        "ticket",
        "the clock of {{ $labels.host }} is not synchronised (sync status {{ $value }})",
        "`chronyc tracking` or `timedatectl`. Certificates, logs and rates all need the time.",
        "node-mixin's NodeClockNotSynchronising: the kernel's own flag, and its largest error of 16 s",
    ),
    Alert(
        "ClockSkewed",
        "abs(node_timex_offset_seconds) > 0.05",
        10 * MINUTE,
        "ticket",
        "the clock of {{ $labels.host }} is off by {{ $value | humanizeDuration }}",
        "`chronyc sources -v`: its time servers have to be reached, and to agree.",
        "0.05 s: node-mixin's NodeClockSkewDetected",
    ),
    Alert(
        "PullDeployFailing",
        "node_pull_deploy_success == 0",
        60 * MINUTE,
        "ticket",
        "{{ $labels.host }} has not deployed what its repository says for an hour (success is {{ $value }})",
        "`journalctl -u vllm-onprem-pull` there: not signed, older, out of reach, or it failed. What ran serves on.",
        "an hour: four pulls at the default interval; a repository that is away for one is no matter",
    ),
    Alert(
        "PullDeployStale",
        "time() - node_pull_deploy_last_run_timestamp_seconds > 4 * node_pull_deploy_interval_seconds + 14400",
        10 * MINUTE,
        "ticket",
        "{{ $labels.host }} has not pulled for {{ $value | humanizeDuration }}",
        "`systemctl list-timers vllm-onprem-pull.timer` there; `systemctl status vllm-onprem-pull` if one hangs.",
        "four intervals beside the 4 hours that a deploy may take (TimeoutStartSec of its unit)",
    ),
)
