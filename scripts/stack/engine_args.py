"""Planned command lines, tried on the pinned vLLM's own argument parser before an engine is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import DockerException

from stack.errors import StackError
from stack.plan.vllm_args import MODEL_MOUNT

# What of it runs is named as a module; it is mounted where nothing else is.
IN_VLLM = Path(__file__).with_name("in_vllm")
MOUNT = "/asked"
TIMEOUT_SECONDS = 300
RESULT = "RESULT "
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HOME": "/tmp",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


def refusals(
    client: docker.DockerClient, image: str, argvs: Sequence[Sequence[str]], model_dir: Path | None = None
) -> list[str | None]:
    """vLLM's complaint, or None, for each argv.

    With model_dir each argv is taken through vLLM's engine configuration too, on that model.
    Raises StackError when the image's vLLM could not be asked.
    """
    volumes = {str(model_dir): {"bind": MODEL_MOUNT, "mode": "ro"}} if model_dir else {}
    arguments = [json.dumps([list(argv) for argv in argvs]), *(["--configure"] if model_dir else [])]
    results: list[str | None] = ask_image(client, image, "check", arguments, volumes)
    return results


def ask_image(
    client: docker.DockerClient,
    image: str,
    program: str,
    arguments: Sequence[str],
    volumes: Mapping[str, dict[str, str]] | None = None,
) -> Any:
    """What a program of in_vllm/ prints behind RESULT in a container of an engine's image, without network or GPU.

    Raises StackError when it prints none.
    """
    try:
        container = client.containers.create(
            image, entrypoint=["python3"], command=["-m", f"{IN_VLLM.name}.{program}", *arguments], working_dir=MOUNT,
            volumes={**(volumes or {}), str(IN_VLLM): {"bind": f"{MOUNT}/{IN_VLLM.name}", "mode": "ro"}},
            environment=ENVIRONMENT, user="2000:2000", network_mode="none", read_only=True,
            tmpfs={"/tmp": "exec,mode=1777"},
            cap_drop=["ALL"], security_opt=["no-new-privileges:true"],
        )  # fmt: skip
        try:
            container.start()
            container.wait(timeout=TIMEOUT_SECONDS)
            printed = container.logs(stdout=True, stderr=False).decode(errors="replace")
            said = container.logs(stdout=False, stderr=True).decode(errors="replace")
        finally:
            container.remove(force=True)
    except (DockerException, requests.RequestException) as error:
        raise StackError(f"vLLM's own parser could not be asked: {error}") from None
    return result_of(printed, said)


def result_of(printed: str, said: str) -> Any:
    """The result in what a program printed. Raises StackError with the last words of its stderr."""
    for line in printed.splitlines():
        if line.startswith(RESULT):
            return json.loads(line.removeprefix(RESULT))
    tail = "\n".join(said.strip().splitlines()[-5:])
    raise StackError(f"vLLM's own parser could not be asked: {tail}")
