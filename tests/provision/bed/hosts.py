"""Servers of the test bed: systemd containers with the hardware of a fixture, and the repository they install from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tarfile import TarFile, TarInfo
from typing import Any, cast

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

FIXTURE = Path(__file__).parents[1] / "fixtures/hgx_a100_8.json"
LABEL = "vllm-onprem-test-hosts"
Hardware = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What a command printed, both streams together."""

    code: int
    out: str


class Host:
    """One server. Its name is Ansible's and Docker's."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.name = cast(str, container.name)

    def run(self, *command: str) -> Ran:
        code, output = self.container.exec_run(list(command))
        return Ran(cast(int, code), cast(bytes, output).decode())

    def sh(self, script: str) -> str:
        """Output of a shell script that has to succeed."""
        ran = self.run("bash", "-ec", script)
        assert ran.code == 0, f"{self.name}: {script}\n{ran.out}"
        return ran.out

    def write(self, path: str, text: str) -> None:
        data = BytesIO()
        with TarFile(fileobj=data, mode="w") as tar:
            info = TarInfo(path.lstrip("/"))
            info.size = len(text.encode())
            tar.addfile(info, BytesIO(text.encode()))
        self.container.put_archive("/", data.getvalue())

    def read(self, path: str) -> str:
        return self.sh(f"cat {path}")

    def json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def hardware(self, change: Callable[[Hardware], None]) -> None:
        """Changes what the tools of the bed answer; PCI devices from the next boot on."""
        hardware = self.json("/var/lib/bed/hardware.json")
        change(hardware)
        self.write("/var/lib/bed/hardware.json", json.dumps(hardware))

    def boot(self) -> None:
        self.container.restart(timeout=10)
        self.wait()

    def wait(self) -> None:
        """Until systemd has come up."""
        for _ in range(480):
            with suppress(APIError):
                if self.run("systemctl", "is-system-running").out.strip() in ("running", "degraded"):
                    return
            time.sleep(0.25)
        raise AssertionError(f"{self.name} is not up: {self.run('systemctl', 'list-jobs').out}")

    def package(self, name: str) -> str:
        """Installed version; '' when it is not."""
        ran = self.run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", name)
        status, _, version = ran.out.partition(" ")
        return version if ran.code == 0 and status == "installed" else ""


class Bed:
    """Everything that a run of the tests starts, on one network of its own."""

    def __init__(self, client: docker.DockerClient, image: str, repositories: Path, name: str) -> None:
        self.client, self.image, self.name = client, image, name
        try:
            self.network = client.networks.create(f"{name}-net", labels={LABEL: name})
            # no way out: what a host can reach there is the repository, and nothing else
            self.closed = client.networks.create(f"{name}-closed", internal=True, labels={LABEL: name})
            self.web = self._serve(repositories)
        except BaseException:
            self.close()
            raise

    def _serve(self, folder: Path) -> str:
        """URL of the repositories, the same from the hosts and from this machine."""
        container = self.client.containers.run(
            self.image,
            ["python3", "-m", "http.server", "--directory", "/srv", "80"],
            name=f"{self.name}-web",
            labels={LABEL: self.name},
            volumes={str(folder): {"bind": "/srv", "mode": "ro"}},
            network=self.network.name,
            detach=True,
        )
        self.closed.connect(container, aliases=["repository"])
        container.reload()
        networks = container.attrs["NetworkSettings"]["Networks"]
        self.closed_url = f"http://{networks[self.closed.name]['IPAddress']}"
        return f"http://{networks[self.network.name]['IPAddress']}"

    def host(
        self,
        name: str,
        hardware: Callable[[Hardware], None] = lambda hardware: None,
        *,
        closed: bool = False,
        image: str | None = None,
        volumes: Sequence[str] = (),
    ) -> Host:
        """A server that is up: bare, or with the disk that `snapshot` kept. volumes: more of them, as Docker wants."""
        fixture = json.loads(FIXTURE.read_text())
        hardware(fixture)
        container = self.client.containers.create(
            image or self.image,
            "/sbin/init",
            name=f"{self.name}-{name}",
            hostname=name,
            labels={LABEL: self.name},
            network=(self.closed if closed else self.network).name,
            cap_add=["SYS_ADMIN", "NET_ADMIN", "MKNOD", "SYS_PTRACE"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            cgroupns="host",
            tmpfs={"/run": "", "/run/lock": ""},
            volumes=["/var/lib/docker", "/sys/fs/cgroup:/sys/fs/cgroup:rw", *volumes],
            restart_policy={"Name": "always"},  # a reboot ends PID 1
        )
        host = Host(container)
        host.write("/var/lib/bed/hardware.json", json.dumps(fixture))
        if not closed:  # what the distribution has: headers of the kernel that runs
            host.write("/etc/apt/sources.list.d/kernel.list", f"deb [trusted=yes] {self.web}/full/kernel ./\n")
        container.start()
        host.wait()
        return host

    def remove(self, host: Host) -> None:
        host.container.remove(force=True, v=True)

    def snapshot(self, host: Host, name: str) -> str:
        """Keeps a host's disk as an image, gone with the bed: what is under /run and /var/lib/docker is not in it."""
        host.sh("apt-get clean")
        label = f"LABEL {LABEL}={self.name}"
        found = self.client.api.commit(host.name, self.name, name, changes=label)
        return cast(str, found["Id"])

    def close(self) -> None:
        filters: dict[str, Any] = {"label": f"{LABEL}={self.name}"}
        for container in self.client.containers.list(all=True, filters=filters):
            with suppress(NotFound):
                container.remove(force=True, v=True)
        for image in self.client.images.list(filters=filters):
            self.client.images.remove(cast(str, image.id), force=True)
        for network in self.client.networks.list(filters=filters):
            network.remove()
