"""Runs of the real playbooks against test hosts, and what came of each task."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from provision.bed.hosts import Host

ROOT = Path(__file__).resolve().parents[3]
ANSIBLE = ROOT / "ansible"
# Versions of the driver that the repositories have.
OLD, NEW, NEXT = "580.159.03", "580.178.04", "595.91.07"
# The engine is Debian's real one (20.10): Docker's own packages are not to be had, so neither is CDI by default.
LOCK: dict[str, Any] = {
    "driver": {"version": NEW, "modules": "open"},
    "container_toolkit": "1.20.0",
    "dcgm": "4.6.1",
    "docker": None,
    "containerd": None,
    "engine_cuda": 13,
}


def driver(version: str, modules: str = "open") -> dict[str, Any]:
    """The part of a lock that names the driver."""
    return {"driver": {"version": version, "modules": modules}}


@dataclass(frozen=True)
class Run:
    """A finished run. tasks: (host, task, result) of all that were not skipped."""

    code: int
    seconds: float
    text: str
    stats: dict[str, dict[str, int]]
    tasks: list[tuple[str, str, dict[str, Any]]] = field(repr=False)
    processor_seconds: float = 0.0  # Ansible's own: what a machine that is busy otherwise does not stretch
    spans: list[tuple[str, float, float]] = field(default_factory=list, repr=False)  # task, its start and end (Unix)

    def changed(self) -> list[str]:
        """Names of the tasks that changed something, in order."""
        return [name for _, name, result in self.tasks if result.get("changed")]

    def took(self, first: str, last: str) -> float:
        """Seconds from the start of one task, where it ran first, to the end of another, where it ran last."""
        return max(end for name, _, end in self.spans if name.endswith(last)) - min(
            start for name, start, _ in self.spans if name.endswith(first)
        )

    def results(self) -> list[dict[str, Any]]:
        """Of every task, and of every item of a loop by itself: what a run costs, whichever machine it runs on."""
        found = [each for _, _, result in self.tasks for each in result.get("results", [result])]
        return [each for each in found if isinstance(each, dict) and not each.get("skipped")]

    def written(self) -> set[str]:
        """Files that tasks wrote."""
        return {each["dest"] for each in self.results() if each.get("changed") and "dest" in each}

    def failures(self) -> str:
        """What failed tasks, and unreachable hosts, had to say."""
        failed = [(name, result) for _, name, result in self.tasks if result.get("failed") or result.get("unreachable")]
        said = ("msg", "stderr", "stdout", "module_stderr", "module_stdout", "results")
        return "\n".join(f"{name}: {result[key]}" for name, result in failed for key in said if result.get(key))


def good(run: Run) -> Run:
    """The run itself, where it ended well."""
    assert run.code == 0, run.failures() + run.text
    return run


class Inventory:
    """Hosts, the lock and variables of a run, written as files."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, hosts: Sequence[Host], lock: Mapping[str, Any], variables: Mapping[str, Any]) -> Path:
        branches = yaml.safe_load((ANSIBLE / "provision.lock.yml").read_text())["provision_branches"]
        lock_file = self.folder / "lock.yml"
        lock_file.write_text(yaml.safe_dump({"provision_lock": dict(lock), "provision_branches": branches}))
        values = {
            "ansible_connection": "community.docker.docker",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "provision_lock_file": str(lock_file),
            "package_sources_nvidia_url": f"{self.url}/cuda",
            "package_sources_nvidia_key": f"{self.url.rsplit('/', 1)[0]}/key.asc",
            "package_sources_toolkit_url": f"{self.url}/toolkit",
            "package_sources_toolkit_key": f"{self.url.rsplit('/', 1)[0]}/key.asc",
            "docker_minimum_version": "20.10",
            "docker_restart": "idle",
            "nvidia_driver_reboot_allowed": True,
            "preflight_boot_free_mib": 1,
            **variables,
        }
        inventory = self.folder / "hosts.yml"
        inventory.write_text(
            yaml.safe_dump({"gpu_nodes": {"hosts": {host.name: None for host in hosts}, "vars": values}})
        )
        return inventory


def play(playbook: str, inventory: Path, *arguments: str, kill_at: str | None = None) -> Run:
    """Runs a playbook. kill_at: ends it as a power cut would, when the task of that name begins."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
        "ANSIBLE_JSON_INDENT": "0",
        "ANSIBLE_HOME": str(ROOT / ".ansible"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
    }
    command = [
        str(ROOT / ".venv/bin/ansible-playbook"),
        "-i",
        str(inventory),
        str(ANSIBLE / "playbooks" / playbook),
        *arguments,
    ]
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    lines = []
    try:
        for line in process.stdout or ():
            lines.append(line)
            if kill_at and '"v2_playbook_on_task_start"' in line and f'"{kill_at}"' in line.replace(" : ", '"'):
                os.killpg(process.pid, 9)
        # and not process.wait(): it would not say what the process and those that it waited for had cost
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:  # a test that is interrupted
        os.killpg(process.pid, 9)
        raise
    return _parsed(process.returncode, time.monotonic() - began, lines, usage.ru_utime + usage.ru_stime)


def _parsed(code: int, seconds: float, lines: list[str], processor_seconds: float) -> Run:
    tasks: list[tuple[str, str, dict[str, Any]]] = []
    stats: dict[str, dict[str, int]] = {}
    spans = []
    other = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            other.append(line)
            continue
        if "stats" in event:
            stats = event["stats"]
        kind = event.get("_event", "")
        if kind.startswith("v2_runner_on") and kind != "v2_runner_on_start":
            name, at = event["task"]["name"], event["task"]["duration"]
            spans.append((name, *(datetime.fromisoformat(at[key]).timestamp() for key in ("start", "end"))))
            for host, result in event["hosts"].items():
                if not result.get("skipped"):
                    tasks.append((host, name, result))
    return Run(code, seconds, "".join(other), stats, tasks, processor_seconds, spans)
