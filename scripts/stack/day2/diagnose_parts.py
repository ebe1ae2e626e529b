"""The parts of a diagnosis: this machine and the stack's files here; the rest is in diagnose_docker."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

from stack.day2 import diagnose_docker
from stack.day2.diagnose import Part
from stack.inputs import ROOT, Place
from stack.render import MANIFEST
from stack.tree import read_tree

COMMAND_SECONDS = 20
LISTED = 2000
COMMANDS: Mapping[str, list[str]] = {
    "host/uptime.txt": ["uptime"],
    "host/disks.txt": ["df", "-hT"],
    "host/memory.txt": ["free", "-m"],
    "host/listening.txt": ["ss", "-ltn"],
    "host/processes.txt": ["ps", "-eo", "pid,ppid,user,stat,pcpu,rss,etime,comm", "--sort=-rss"],
    "host/git.txt": ["git", "-C", str(ROOT), "log", "-1", "--oneline"],
    "host/git-status.txt": ["git", "-C", str(ROOT), "status", "--short"],
    "host/kernel.log": ["dmesg", "--ctime"],
    "gpu/nvidia-smi.txt": ["nvidia-smi"],
    "gpu/nvidia-smi-q.txt": ["nvidia-smi", "-q"],
    "gpu/topology.txt": ["nvidia-smi", "topo", "-m"],
}
KERNEL_LINES = 500


def parts(place: Place, stack_file: Path, lines: int) -> Iterator[Part]:
    """Every part of a stack's diagnosis. lines: of each container's log."""
    yield Part("versions", _versions)
    yield Part("stack file", lambda: {"stack.yaml": stack_file.read_text(errors="replace")})
    yield Part("applied files", partial(_applied, place.live))
    yield Part("state folder", partial(_listing, place.state))
    for path, command in COMMANDS.items():
        yield Part(path, partial(_command, path, command))
    yield from diagnose_docker.parts(place, lines)


def known_secrets(state: Path, more: tuple[Path, ...], environment: Mapping[str, str]) -> set[str]:
    """Values that must not leave: every line of the stack's secret files and hashes of keys, tokens and passwords of
    the environment. more: other files of the user's own, whole."""
    files = [path for folder in ("secrets", "tls") for path in (state / folder).rglob("*") if path.suffix != ".crt"]
    values = set()
    for path in [*files, *more, state / "live/nginx/keys.json"]:
        if path.is_file() and os.access(path, os.R_OK):
            values |= {line.strip() for line in path.read_text(errors="replace").splitlines()}
    for path in (state / "secrets/clients.json", state / "live/nginx/keys.json"):
        values |= _strings(path)
    words = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "CREDENTIAL")
    values |= {value for name, value in environment.items() if any(word in name.upper() for word in words)}
    return {value for value in values if not value.startswith("-----") and len(value) > 5 and not _is_name(value)}


def _is_name(value: str) -> bool:
    # lines of the JSON files that hold no value of their own
    return value.endswith(("{", "[", "]", "},", "}", "],")) or value.startswith('"')


def _strings(path: Path) -> set[str]:
    """Hexadecimal digests in a JSON file, as values or as keys."""
    try:
        text = path.read_text()
    except OSError:
        return set()
    return {word for word in text.replace('"', " ").split() if len(word) == 64}


def _versions() -> dict[str, str]:
    about = {
        "system": Path("/etc/os-release").read_text(),
        "kernel": " ".join(platform.uname()),
        "python": platform.python_version(),
        "packages": sorted(f"{one.metadata['Name']}=={one.version}" for one in distributions()),
    }
    return {"host/versions.json": json.dumps(about, indent=1)}


def _applied(live: Path) -> dict[str, str]:
    files = read_tree(live)
    if not files:
        raise LookupError(f"{live} holds no applied stack")
    return {f"applied/{path}": data.decode(errors="replace") for path, data in files.items() if path != MANIFEST}


def _listing(state: Path) -> dict[str, str]:
    if not state.is_dir():
        raise LookupError(f"{state} is not there")
    lines = []
    for folder, _, names in os.walk(state):
        if Path(folder).is_relative_to(state / "cache"):
            continue
        for path in [Path(folder), *(Path(folder) / name for name in sorted(names))]:
            about = path.lstat()
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(about.st_mtime))
            lines.append(f"{about.st_mode:07o} {about.st_uid:5} {about.st_size:12} {when} {path.relative_to(state)}")
    small = ("drained.json", "cordoned.json", "hosts.yaml", "images.yaml", "start-seconds.json", "proven")
    reasons = sorted((state / "evidence").glob("*/*/reason.json"))
    texts = {path: path.read_text(errors="replace") for name in small if (path := state / name).is_file()}
    texts |= {path: path.read_text(errors="replace") for path in reasons}
    found = {f"state/{path.relative_to(state)}": text for path, text in texts.items()}
    return {"state/files.txt": "\n".join(lines[:LISTED]) + "\n", **found}


def _command(path: str, command: list[str]) -> dict[str, str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, errors="replace"
    )
    text = done.stdout
    if command[0] == "dmesg":
        text = "\n".join(text.splitlines()[-KERNEL_LINES:]) + "\n"
    if done.returncode and not text.strip():
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[:300]}")
    return {path: text + done.stderr}
