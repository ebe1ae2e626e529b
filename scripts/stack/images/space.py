"""Room for images, asked before the first byte is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import docker

from stack.errors import StackError


def docker_folder(client: docker.DockerClient) -> Path:
    """Where Docker keeps its images; a remote engine's folder is not on this machine."""
    return Path(client.info().get("DockerRootDir", "/var/lib/docker"))


def need_space(what: str, needs: Iterable[tuple[Path, int]]) -> None:
    """Raise StackError unless the disks of these folders have so many bytes free; one disk has to hold the sum."""
    disks: dict[int, tuple[Path, int]] = {}
    for path, need in needs:
        if path.exists():
            device = path.stat().st_dev
            disks[device] = (path, need + disks.get(device, (path, 0))[1])
    for path, need in disks.values():
        free = shutil.disk_usage(path).free
        if free < need:
            raise StackError(
                f"{what} needs {need / 1e9:.1f} GB free at {path}, and {free / 1e9:.1f} GB are: "
                "make room (`docker system df` shows what Docker holds)"
            )
