"""Copies of secrets for the containers that read them: one file each, mode 0400, owned by the container's user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import docker

from stack.ownership import ENGINE_UID, HAPROXY_UID, give_to
from stack.private_file import write_private
from stack.secrets.engine_key import EngineKeys, name_of

MODE = 0o400


@dataclass(frozen=True)
class Copy:
    """folder: below secrets/. name: of its content, where it may be another one day. uid: the container's user."""

    folder: str
    name: str
    uid: int
    content: bytes

    def path(self, state: Path) -> Path:
        """Where it is on the host."""
        return state / "secrets" / self.folder / self.name


def copies_of(keys: EngineKeys) -> tuple[Copy, ...]:
    """What containers read of the engines' key."""
    engines, haproxy = keys.engine_copy(), keys.haproxy_copy()
    return (
        Copy("engine", f"{name_of(engines)}.yaml", ENGINE_UID, engines),
        Copy("haproxy", f"{name_of(haproxy)}.map", HAPROXY_UID, haproxy),
    )


def hand_out(state: Path, copies: Iterable[Copy], image: str, client: docker.DockerClient) -> None:
    """Make the copies that are missing, and mend owner and mode of all. image: one that is here anyway."""
    for copy in copies:
        path = copy.path(state)
        path.parent.mkdir(parents=True, exist_ok=True)
        # a container of another user looks into it; secrets/ above it is closed
        path.parent.chmod(0o755)
        if path.is_dir():
            path.rmdir()  # what Docker makes where a file to mount is missing
        if not _is_there(path, copy.content):
            write_private(path, copy.content)
        give_to([path], copy.uid, image, client, MODE)


def keep_only(state: Path, copies: Iterable[Copy]) -> None:
    """Drop every other copy of the same folders."""
    wanted = {copy.path(state) for copy in copies}
    for folder in {path.parent for path in wanted}:
        for path in set(folder.iterdir()) - wanted:
            path.unlink()


def _is_there(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # the container's and not ours to read: its name is of its content, or it never changes
