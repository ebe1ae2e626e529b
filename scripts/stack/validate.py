"""A rendered tree, checked by the very programs that will read it, before anything is touched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import ContainerError, DockerException

from stack.docker_host import compose
from stack.errors import StackError


@dataclass(frozen=True)
class Check:
    """One program's own check: image role, the user it runs as, command, and the folders of the tree it reads.

    secrets: the folder of the stack's state that it reads too, and where it sees it.
    """

    role: str
    uid: int
    command: tuple[str, ...]
    mounts: Mapping[str, str]
    secrets: tuple[str, str] | None = None


CHECKS = (
    Check("nginx", 101, ("nginx", "-t", "-q", "-c", "/etc/nginx/stack/nginx.conf"), {"nginx": "/etc/nginx/stack"},
          ("tls", "/etc/nginx/tls")),
    Check("haproxy", 99, ("haproxy", "-c", "-q", "-f", "/etc/haproxy/haproxy.cfg"), {"haproxy": "/etc/haproxy"},
          ("secrets/haproxy", "/run/secrets")),
    Check("prometheus", 65534, ("promtool", "check", "config", "/etc/prometheus/prometheus.yml"),
          {"prometheus": "/etc/prometheus"}),
    Check("alertmanager", 65534, ("amtool", "check-config", "/etc/prometheus/alertmanager.yml"),
          {"prometheus": "/etc/prometheus"}),
    Check("blackbox_exporter", 65534,
          ("blackbox_exporter", "--config.check", "--config.file=/etc/blackbox/blackbox.yml"),
          {"blackbox": "/etc/blackbox"}),
)  # fmt: skip


def validate(
    tree: Path, images: Mapping[str, str], state: Path, client: docker.DockerClient, only: Collection[str] = ()
) -> None:  # fmt: skip
    """Check a rendered tree with compose, nginx, haproxy, promtool and amtool. Raises StackError with all findings.

    state: the stack's own folder, with the certificate and the secrets that the tree names. only: folders of the tree
    that differ from one that was checked before; the rest is not checked again.
    """
    with ThreadPoolExecutor() as pool:
        jobs = [] if only else [pool.submit(_compose, tree)]
        # a host of a fleet has the files of its own roles
        wanted = [check for check in CHECKS if not only or check.mounts.keys() & set(only)]
        here = [check for check in wanted if all((tree / source).is_dir() for source in check.mounts)]
        jobs += [pool.submit(_check, check, tree, images, state, client) for check in here]
        found = [finding for job in jobs if (finding := job.result())]
    if found:
        raise StackError("the rendered configuration is refused; nothing was changed\n" + "\n".join(found))


def _compose(tree: Path) -> str | None:
    try:
        compose(tree, "config", "--quiet")
    except StackError as error:
        return str(error)
    return None


def _check(check: Check, tree: Path, images: Mapping[str, str], state: Path, client: docker.DockerClient) -> str | None:
    volumes = {str(tree / source): {"bind": target, "mode": "ro"} for source, target in check.mounts.items()}
    if check.secrets:
        source, target = check.secrets
        volumes[str(state / source)] = {"bind": target, "mode": "ro"}
    try:
        client.containers.run(
            images[check.role],
            entrypoint=[check.command[0]],
            command=list(check.command[1:]),
            volumes=volumes,
            network_mode="none",
            user=f"{check.uid}:{check.uid}",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            remove=True,
            stderr=True,
        )
    except ContainerError as error:
        stderr: Any = error.stderr  # bytes, whatever the stubs say
        output = stderr.decode(errors="replace").strip() if stderr else f"exit {error.exit_status}"
        return f"{' '.join(check.command)}:\n" + "\n".join(f"  {line}" for line in output.splitlines()[-8:])
    except DockerException as error:
        return f"{' '.join(check.command)}: could not be run: {error}"
    return None
