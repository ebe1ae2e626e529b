"""Builds the images under compose/images with a plain Docker engine: no registry, no buildx."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import docker
import docker.errors
import requests

from stack.apt_sources import debian_mirror, read_sources
from stack.errors import StackError
from stack.images.choice import FOLDER, base_reference, built_reference
from stack.images.pins import Pins
from stack.images.space import docker_folder, need_space
from stack.progress import TAIL_LINES, CancelledError, Progress

# What a build writes at its peak, in bytes, measured: image layers and, in the work folder, contexts and tars.
_IMAGE_BYTES = {"vllm-cpu": 3_500_000_000}
_WORK_BYTES = {"vllm-cpu": 2_500_000_000}
_OTHER_BYTES = 700_000_000
_NOT_CONTEXT = ("context.sh",)


class Builder:
    """Builds images of one project; every file it needs meanwhile is under work."""

    def __init__(self, root: Path, pins: Pins, client: docker.DockerClient, progress: Progress, work: Path) -> None:
        self.root = root
        self.pins = pins
        self.client = client
        self.progress = progress
        self.work = work

    def check_space(self, names: Iterable[str]) -> None:
        """Raise StackError unless the disks hold what the named builds write."""
        names = list(names)
        need_space(
            "building images",
            [
                (docker_folder(self.client), sum(_IMAGE_BYTES.get(name, _OTHER_BYTES) for name in names)),
                (self.work, sum(_WORK_BYTES.get(name, _OTHER_BYTES) for name in names)),
            ],
        )

    def base(self, suite: str) -> None:
        """Make the base image of a Debian suite from the packages that this machine's apt knows."""
        name = f"base {suite}"
        mirror = debian_mirror(read_sources())
        rootfs = self.work / f"{suite}.tar"
        log = self.work / f"base-{suite}.log"
        with self.progress.step(name, "debootstrap"), rootfs.open("wb") as output:
            # A mount namespace of its own: nothing stays mounted however it ends.
            self.progress.command(
                name,
                ["unshare", "--mount", "bash", str(self.root / FOLDER / "base/rootfs.sh"), suite, mirror.archive,
                 mirror.security or "", mirror.keyring, str(self.work)],
                log=log,
                stdout=output,
            )  # fmt: skip
        repository, tag = base_reference(self.root, suite).rsplit(":", 1)
        with self.progress.step(name, "docker import"), rootfs.open("rb") as data:
            answer = self.client.api.import_image_from_data(data, repository=repository, tag=tag)
            if '"error"' in str(answer):
                raise StackError(f"{name}: docker import failed: {answer}")
        rootfs.unlink()

    def context(self, name: str) -> Path:
        """The build context of compose/images/<name>: its files, and what its context.sh adds."""
        source = self.root / FOLDER / name
        target = self.work / name
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_CONTEXT, ".*", "__*"))
        script = source / "context.sh"
        if script.is_file():
            env = {**os.environ, "PIP": pip_command(), "PYTHON": sys.executable}
            env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
            with self.progress.step(f"{name} context", "pip"):
                try:
                    argv = ["bash", str(script), str(target)]
                    self.progress.command(f"{name} context", argv, log=self.work / f"{name}.log", env=env)
                except CancelledError:
                    raise
                except StackError as error:
                    raise StackError(
                        f"{error}\n  The versions come from {FOLDER / name}/requirements.lock, by way of "
                        f"`{env['PIP']}` and its configuration (`pip config list`): see that its index answers and "
                        "holds them, or use images from a registry (images.source: registry)"
                    ) from None
        return target

    def has_system_stage(self, name: str) -> bool:
        """True when the Dockerfile has a first stage that needs no context."""
        return " AS system" in (self.root / FOLDER / name / "Dockerfile").read_text()

    def system_stage(self, name: str) -> None:
        """Build that stage ahead; the engine's layer cache gives it to the real build."""
        context = self.work / f"{name}-system"
        context.mkdir()
        shutil.copy(self.root / FOLDER / name / "Dockerfile", context)
        self._docker_build(name, "system packages", context, tag=None, target="system")

    def image(self, name: str, context: Path) -> None:
        """Build and tag the image, then drop its context."""
        self._docker_build(name, "docker build", context, tag=built_reference(self.root, self.pins, name))
        shutil.rmtree(context)

    def _docker_build(self, name: str, what: str, context: Path, tag: str | None, target: str = "") -> None:
        base = base_reference(self.root, self.pins.builds[name].suite)
        # GNU tar streams the context: the SDK would first write a second copy of it to disk.
        tar = subprocess.Popen(
            ["tar", "--create", "--owner=0", "--group=0", "--mode=go+rX,go-w", "-C", str(context), "."],
            stdout=subprocess.PIPE,
        )
        lines: list[str] = []
        step = ""
        try:
            with self.progress.step(name, what):
                for event in self.client.api.build(
                    fileobj=tar.stdout,
                    custom_context=True,
                    tag=tag,
                    target=target,
                    buildargs={"BASE": base},
                    rm=True,
                    forcerm=True,
                    decode=True,
                    use_config_proxy=True,
                ):
                    if self.progress.cancelled.is_set():
                        raise CancelledError(f"{name}: stopped, as something else failed")
                    text = str(event.get("stream", "")).strip()
                    lines += [text] if text else []
                    if text.startswith("Step "):
                        step = text[:90]
                        self.progress.detail(name, f"{what}, step {text.split()[1]}")
                    if "error" in event:
                        shown = "\n  ".join([*lines[-TAIL_LINES:], str(event["error"])])
                        raise StackError(
                            f"{name}: docker build of {FOLDER / name} failed at `{step}`:\n  {shown}\n  "
                            "If packages were not found, see that containers reach the mirror of this machine's apt"
                        )
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise StackError(f"{name}: docker build of {FOLDER / name} failed: {error}") from error
        finally:
            tar.kill()
            tar.wait()


def pip_command() -> str:
    """The pip to use: this Python's own, else the one on PATH. Raises StackError when there is none."""
    if importlib.util.find_spec("pip"):
        return f"{sys.executable} -m pip"
    found = shutil.which("pip3") or shutil.which("pip")
    if not found:
        raise StackError("no pip: building images needs one on PATH or in this Python (`python3 -m ensurepip`)")
    return found


def need_debootstrap(progress: Progress, log: Path) -> None:
    """Install debootstrap when missing. Raises StackError when not root, or not on Debian."""
    if os.geteuid() != 0:
        raise StackError(
            "building images needs root: debootstrap makes their base system in a chroot; run as root, or use "
            "images from a registry: --source registry"
        )
    if os.uname().machine != "x86_64":
        raise StackError(f"images are built on x86_64 only, and this is {os.uname().machine}: images.source: registry")
    if shutil.which("debootstrap"):
        return
    debian_mirror(read_sources())
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with progress.step("debootstrap", "apt-get install"):
        progress.command("debootstrap", ["apt-get", "update", "-q"], log=log, env=env)
        argv = ["apt-get", "install", "-qy", "--no-install-recommends", "debootstrap"]
        progress.command("debootstrap", argv, log=log, env=env)
