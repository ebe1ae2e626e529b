"""A real image registry on loopback (Debian's docker-registry), and a relay in front of it that can be slow."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
import requests

# What an on-prem registry's proxy says of a path whose server is gone.
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nnot found\n"


def program(folder: Path) -> Path:
    """docker-registry: the machine's own, else Debian's package unpacked into a folder, so that no service starts."""
    found = shutil.which("docker-registry")
    if found:
        return Path(found)
    if not shutil.which("apt-get"):
        pytest.skip("no docker-registry on this machine, and no apt to get Debian's: pulls were NOT tested")
    folder.chmod(0o777)  # apt fetches as a user of its own
    command = ["apt-get", "-qq", "download", "docker-registry"]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "-qq", "update"], check=True, capture_output=True)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    return folder / "unpacked/usr/bin/docker-registry"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Registry:
    """One registry process; several may serve one folder. htpasswd: who may ask, or everybody."""

    program: Path
    folder: Path
    htpasswd: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {"addr": self.host},
        }
        if self.htpasswd:
            users = self.folder / "htpasswd"
            users.write_text(self.htpasswd)
            settings["auth"] = {"htpasswd": {"realm": "constructed", "path": str(users)}}
        path = self.folder / f"{self.port}.yml"
        path.write_text(json.dumps(settings))
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([self.program, "serve", path], stdout=log, stderr=log)
        session = requests.Session()
        session.trust_env = False
        for _ in range(100):
            with suppress(requests.RequestException):
                session.get(f"http://{self.host}/v2/", timeout=1)
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / f"{self.port}.log").read_text())

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def push(self, client: docker.DockerClient, name: str, size: int = 1000) -> str:
        """Put an image of random bytes there; its digest, as the registry says it."""
        repository, _, tag = f"{self.host}/{name}".rpartition(":")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("random")
            info.size = size
            tar.addfile(info, io.BytesIO(os.urandom(size)))
        client.api.import_image_from_data(buffer.getvalue(), repository=repository, tag=tag)
        events = list(client.api.push(repository, tag=tag, stream=True, decode=True))
        client.images.remove(f"{repository}:{tag}")
        return next(str(event["aux"]["Digest"]) for event in events if "aux" in event)


class Relay:
    """Hands bytes on to a registry; after `limit` bytes of answers it calls `then` once, and that answer ends.

    rate: bytes a second while a limit is set. When the registry is gone, requests get GONE.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.limit, self.rate = 0, 4_000_000
        self.then: Callable[[], None] = lambda: None
        self.passed = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.registry.port), 5)
        except OSError:
            client.recv(65536)
            client.sendall(GONE)
            client.close()
            return
        threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
        self._pump(server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
                if answers and self.limit:
                    time.sleep(len(piece) / self.rate)
                    self.passed += len(piece)
                    if self.passed > self.limit:
                        self.limit = 0
                        self.then()
                        break  # what the kernel still holds of it would be the rest of a small layer
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
