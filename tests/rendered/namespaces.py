"""A small network of its own: hosts as network namespaces on one bridge. Needs root; touches nothing outside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("up", flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    connection.close()
"""

CLIENT = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def answer(word):
    address, port = word.split(":")
    try:
        connection = socket.create_connection((address, int(port)), 0.8)
        connection.settimeout(0.8)
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return word if connection.recv(100) else None
    except OSError:
        return None
with ThreadPoolExecutor(32) as pool:
    print(*filter(None, pool.map(answer, sys.argv[1:])))
"""


@dataclass
class Network:
    """Hosts by name, all of them on the bridge of a namespace `switch`."""

    prefix: str
    hosts: dict[str, str] = field(default_factory=dict)
    servers: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, host: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in a host's namespace."""
        return _run("ip", "netns", "exec", f"{self.prefix}{host}", *command, check=check)

    def popen(self, host: str, *command: str) -> subprocess.Popen[str]:
        """A program in a host's namespace, ended with the network."""
        full = ["ip", "netns", "exec", f"{self.prefix}{host}", *command]
        process = subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.servers.append(process)
        return process

    def add(self, host: str, address: str | None = None) -> None:
        """A host with this address on its eth0."""
        _run("ip", "netns", "add", f"{self.prefix}{host}")
        self.hosts[host] = address or ""
        self.run(host, "ip", "link", "set", "lo", "up")
        if address:
            self.cable(host, "eth0", "switch", host)
            self.run("switch", "ip", "link", "set", host, "master", "bridge")
            self.run(host, "ip", "address", "add", f"{address}/24", "dev", "eth0")

    def cable(self, one: str, interface: str, other: str, there: str) -> None:
        """A pair of interfaces between two namespaces."""
        ends = ["peer", "name", there, "netns", f"{self.prefix}{other}"]
        self.run(one, "ip", "link", "add", interface, "type", "veth", *ends)
        self.run(one, "ip", "link", "set", interface, "up")
        self.run(other, "ip", "link", "set", there, "up")

    def serve(self, host: str, address: str, port: int) -> subprocess.Popen[str]:
        """Something that answers 200 at an address and a port."""
        process = self.popen(host, sys.executable, "-c", SERVER, address, str(port))
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def reached(self, host: str, *places: tuple[str, int]) -> set[tuple[str, int]]:
        """Of these addresses and ports those that a host gets an answer from within a second."""
        words = [f"{address}:{port}" for address, port in places]
        told = self.run(host, sys.executable, "-c", CLIENT, *words).stdout.split()
        return {(address, int(port)) for address, port in (word.split(":") for word in told)}

    def reaches(self, host: str, address: str, port: int) -> bool:
        """Whether a host gets an answer from there."""
        return bool(self.reached(host, (address, port)))


def needed(*programs: str) -> None:
    """Skip loudly where a program, or the right to make namespaces, is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"NOT CHECKED: no `{program}` on this machine (apt-get install {PACKAGES[program]})")


PACKAGES = {"nft": "nftables", "keepalived": "keepalived", "ip": "iproute2", "curl": "curl"}


@contextmanager
def network(switch: str = "10.0.0.254") -> Iterator[Network]:
    """An empty network. Skips loudly where namespaces, pairs and bridges cannot be made."""
    needed("ip")
    made = Network(f"vo{os.getpid()}-")
    try:
        try:
            made.add("switch")
            made.run("switch", "ip", "link", "add", "bridge", "type", "bridge")
            made.run("switch", "ip", "link", "set", "bridge", "up")
            made.add("probe", switch)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"NOT PROVEN BY CONNECTING: no network namespaces here: {error.stderr.strip()}")
        yield made
    finally:
        for process in made.servers:
            process.terminate()
            process.wait(timeout=10)
        for host in made.hosts:
            _run("ip", "netns", "delete", f"{made.prefix}{host}", check=False)


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done: Sequence[str] = command
    return subprocess.run(done, capture_output=True, text=True, timeout=30, check=check)
