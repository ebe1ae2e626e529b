"""Files that a container reads or writes belong to the user it runs as, whoever runs `make up`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import docker

ENGINE_UID, NGINX_UID, HAPROXY_UID, WATCH_UID, GRAFANA_UID = 2000, 101, 99, 65534, 472
_GIVE = 'mode=$1 owner=$2; shift 2; chown "$owner" "$@" && if [ -n "$mode" ]; then chmod "$mode" "$@"; fi'


def give_to(paths: Sequence[Path], uid: int, image: str, client: docker.DockerClient, mode: int | None = None) -> None:
    """Make uid own each path, with this mode where one is given.

    Without root this is done by a container of an image that is here anyway.
    """
    others = [path for path in paths if not _is_given(path, uid, mode)]
    if not others:
        return
    if os.geteuid() == 0:
        for path in others:
            os.chown(path, uid, uid)
            if mode is not None:
                path.chmod(mode)
        return
    octal = "" if mode is None else f"{mode:o}"
    for parent in sorted({path.parent for path in others}):
        names = [f"/folder/{path.name}" for path in others if path.parent == parent]
        client.containers.run(
            image, entrypoint=["sh", "-c", _GIVE, "sh"], command=[octal, f"{uid}:{uid}", *names], user="0:0",
            network_mode="none", volumes={str(parent): {"bind": "/folder", "mode": "rw"}}, remove=True,
        )  # fmt: skip


def _is_given(path: Path, uid: int, mode: int | None) -> bool:
    now = path.lstat()
    return now.st_uid == uid and (mode is None or now.st_mode & 0o777 == mode)
