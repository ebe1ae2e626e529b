"""Planned command lines, tried on the pinned vLLM's own argument parser before an engine is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stack.errors import StackError
from stack.vllm_args import MODEL_MOUNT

CHECKER = Path(__file__).with_name("vllm_check.py")
TIMEOUT_SECONDS = 300


def refusals(image: str, argvs: Sequence[Sequence[str]], model_dir: Path | None = None) -> list[str | None]:
    """vLLM's complaint, or None, for each argv.

    With model_dir each argv is taken through vLLM's engine configuration too, on that model.
    Raises StackError when the image's vLLM could not be asked.
    """
    mount = ["--volume", f"{model_dir}:{MODEL_MOUNT}:ro"] if model_dir else []
    command = [
        "docker", "run", "--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--user", "2000:2000", "--tmpfs", "/tmp:exec,mode=1777",
        "--env", "HOME=/tmp", "--env", "VLLM_CPU_KVCACHE_SPACE=1", "--env", "HF_HUB_OFFLINE=1",
        "--env", "VLLM_NO_USAGE_STATS=1", "--env", "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",
        "--volume", f"{CHECKER}:/check.py:ro", *mount,
        "--entrypoint", "python3", image, "/check.py", *(["--configure"] if model_dir else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, input=json.dumps([list(argv) for argv in argvs]), text=True, capture_output=True,
            timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        raise StackError(f"vLLM's own parser could not be asked: {error}") from None
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            results: list[str | None] = json.loads(line.removeprefix("RESULT "))
            return results
    tail = "\n".join(done.stderr.strip().splitlines()[-5:])
    raise StackError(f"vLLM's own parser could not be asked ({done.returncode}): {tail}")
