"""What a wedged engine looked like before it was killed: one folder for each time, the newest few kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

KEPT = 5
# How much of the log belongs to the evidence, in seconds before the engine stood still and after it was killed.
LOG_BEFORE, LOG_AFTER = 300, 30


def save(root: Path, proc: Path, reason: Mapping[str, object], metrics: bytes) -> None:
    """Write root/<time>/: reason.json, metrics.txt, each process and its threads, and what the tools here say.

    reason holds since, the Unix time when it began. May hang with what it looks at, so the surest comes first.
    """
    now = time.time()
    folder = root / f"{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
    folder.mkdir()
    # Docker keeps the log of a container that it starts again, until the container is replaced.
    window = f"--since {_utc(float(str(reason['since'])) - LOG_BEFORE)} --until {_utc(now + LOG_AFTER)}"
    log = f"docker logs --timestamps {window} {os.uname().nodename}"
    (folder / "reason.json").write_text(json.dumps({"time": _utc(now), **reason, "log": log}, indent=1) + "\n")
    (folder / "metrics.txt").write_bytes(metrics)
    for old in sorted(path for path in root.iterdir() if path.is_dir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    pids = [pid for pid in processes(proc) if pid != os.getpid()]
    tools = _start_tools(folder, pids)
    for pid in pids:
        (folder / f"process-{pid}.txt").write_text(_describe(proc / str(pid)))
    for tool in tools:
        tool.wait()


def processes(proc: Path) -> list[int]:
    """Ids of all processes that this container sees."""
    return sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _start_tools(folder: Path, pids: list[int]) -> list[subprocess.Popen[bytes]]:
    commands = {"nvidia-smi.txt": ["nvidia-smi", "-q"]}
    commands |= {f"py-spy-{pid}.txt": ["py-spy", "dump", "--nonblocking", "--pid", str(pid)] for pid in pids if pid > 1}
    started = []
    for name, command in commands.items():
        if shutil.which(command[0]):
            with (folder / name).open("wb") as output:
                started.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
    return started


def _describe(process: Path) -> str:
    # The kernel's stack wants a privilege that engines do not have: then the refusal stands in its place.
    parts = [f"{name}: {_text(process / name)}" for name in ("cmdline", "wchan", "stack", "status")]
    tasks = sorted((process / "task").iterdir()) if (process / "task").is_dir() else []
    threads = [f"  {task.name} {_text(task / 'comm')}: {_state(task)}, {_text(task / 'wchan')}" for task in tasks]
    return "\n".join([*parts, f"threads ({len(threads)}): id name: state, waits in", *threads]) + "\n"


def _state(task: Path) -> str:
    return next((line[7:] for line in _text(task / "status").splitlines() if line.startswith("State:")), "?")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError as error:
        return f"({error.strerror})"
