"""Plays run by Ansible itself, on hosts that are folders of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from stacks import ROOT

ANSIBLE = ROOT / "ansible"


def play(plays: Sequence[Mapping[str, Any]], inventory: Mapping[str, Any], folder: Path) -> tuple[int, str]:
    """Exit code, and what was printed. Modules in the folder's own library/ are taken before the project's."""
    playbook = folder / "play.yml"
    playbook.write_text(yaml.safe_dump(list(plays)))
    return play_file(playbook, inventory, folder, "-e", f"__stack_project={ROOT}")


def play_file(playbook: Path, inventory: Mapping[str, Any], folder: Path, *arguments: str) -> tuple[int, str]:
    """The same of a playbook that is there."""
    (folder / "hosts.yml").write_text(yaml.safe_dump(dict(inventory)))
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOME": str(ROOT / ".ansible"), "ANSIBLE_ROLES_PATH": str(ANSIBLE / "roles"),
        "ANSIBLE_LIBRARY": f"{folder / 'library'}:{ANSIBLE / 'library'}", "ANSIBLE_ASYNC_DIR": str(folder / "async"),
        "ANSIBLE_FILTER_PLUGINS": str(ANSIBLE / "filter_plugins"),
    }  # fmt: skip
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "hosts.yml", str(playbook), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def at_once(calls: Sequence[str]) -> list[str]:
    """Calls that several hosts made one after the other or at the same time, as one: `hosts: call`."""
    split = (call.split(": ", 1) for call in calls)
    return [f"{' '.join(sorted(h for h, _ in same))}: {call}" for call, same in groupby(split, lambda each: each[1])]
