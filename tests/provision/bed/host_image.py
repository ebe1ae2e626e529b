"""The image of a bare Debian 12 server with systemd, and on it the stand-ins for what a container has no own of."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from stack.apt_sources import debian_mirror, read_sources

HOST = Path(__file__).parent / "host"
NAME = "vllm-onprem-test/host"
# What an installed server has and a minimal root file system has not.
SERVER = ("systemd-sysv", "dbus", "python3", "python3-apt", "kmod", "procps", "pciutils", "iproute2", "ca-certificates")
# Runs inside the new root: a host of its own, whose kernel tools are the bed's.
SETTLE = """
set -e
dpkg-divert --local --rename --add /sbin/modprobe >/dev/null
ln -sf /opt/bed/modprobe.py /sbin/modprobe
install -m 755 /opt/bed/update-initramfs /usr/sbin/update-initramfs
install -m 644 /opt/bed/*.service /etc/systemd/system/
systemctl enable bed-boot.service bed-kernel-settings.service 2>/dev/null
systemctl mask systemd-udevd.service getty.target 2>/dev/null
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/bed
mkdir -p /etc/systemd/system/chrony.service.d /var/lib/bed /boot
install -m 644 /opt/bed/chrony-without-clock.conf /etc/systemd/system/chrony.service.d/
rm -rf /var/cache/apt/archives/*.deb /etc/machine-id /var/lib/apt/lists/*
: >/etc/machine-id
"""


def need(*programs: str) -> None:
    """Installs the packages of those names whose programs are missing. Needs root, and Debian or Ubuntu."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
        subprocess.run(
            ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )


def tag() -> str:
    """The image's tag: its content by hash."""
    digest = hashlib.sha256(SETTLE.encode() + " ".join(SERVER).encode())
    for path in sorted(HOST.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{NAME}:bookworm-{digest.hexdigest()[:12]}"


def host_image(client: docker.DockerClient) -> str:
    """Name of the image, made where it is missing (half a minute; needs root and debootstrap)."""
    name = tag()
    try:
        client.images.get(name)
    except ImageNotFound:
        _make(client, name)
    return name


def _make(client: docker.DockerClient, name: str) -> None:
    mirror = debian_mirror(read_sources())
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        subprocess.run(
            [
                *("debootstrap", "--variant=minbase", f"--include={','.join(SERVER)}", f"--keyring={mirror.keyring}"),
                *("bookworm", str(root), mirror.archive),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        sources = [f"deb {mirror.archive} bookworm main", f"deb {mirror.archive} bookworm-updates main"]
        if mirror.security:
            sources.append(f"deb {mirror.security} bookworm-security main")
        (root / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")
        bed = root / "opt/bed"
        bed.mkdir(parents=True)
        for path in HOST.iterdir():
            (bed / path.name).write_bytes(path.read_bytes())
            (bed / path.name).chmod(0o755)
        subprocess.run(["chroot", str(root), "sh", "-c", SETTLE], check=True)
        tar = Path(scratch) / "root.tar"
        subprocess.run(
            ["tar", "-C", str(root), "-cf", str(tar), "--exclude=./dev/*", "--exclude=./proc/*", "."], check=True
        )
        with tar.open("rb") as data:
            repository, _, version = name.partition(":")
            client.api.import_image_from_data(data, repository=repository, tag=version)
