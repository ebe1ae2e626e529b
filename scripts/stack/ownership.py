"""Files that a container reads or writes belong to the user it runs as, whoever runs `make up`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import docker

ENGINE_UID, NGINX_UID, WATCH_UID = 2000, 101, 65534


def give_to(paths: Sequence[Path], uid: int, image: str, client: docker.DockerClient) -> None:
    """Make uid own each path. Without root this is done by a container of an image that is here anyway."""
    others = [path for path in paths if path.lstat().st_uid != uid]
    if not others:
        return
    if os.geteuid() == 0:
        for path in others:
            os.chown(path, uid, uid)
        return
    for parent in sorted({path.parent for path in others}):
        names = [f"/folder/{path.name}" for path in others if path.parent == parent]
        client.containers.run(
            image, entrypoint=["chown"], command=[f"{uid}:{uid}", *names], user="0:0", network_mode="none",
            volumes={str(parent): {"bind": "/folder", "mode": "rw"}}, remove=True,
        )  # fmt: skip
