"""Models onto this host before the engines start: engines have no route out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import yaml

from stack.config import Model, StackConfig
from stack.errors import StackError
from stack.plan import absolute, model_dir
from stack.toy import make_toy_model

# Weights as safetensors only: pickle files run code when they are loaded.
PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "tokenizer*"]


def ensure_models(config: StackConfig, root: Path, say: Callable[[str], None]) -> None:
    """Make or fetch every model that is not there. A half-fetched model is never in its final place."""
    for model in config.models:
        folder = model_dir(config, model, root)
        if model.source.toy:
            if make_toy_model(folder):
                say(f"made the toy model in {folder}")
        elif model.source.hub is not None and not folder.is_dir():
            _fetch(model, folder, absolute(root, config.paths.state) / "models.lock", say)


def _fetch(model: Model, folder: Path, lock: Path, say: Callable[[str], None]) -> None:
    # imported here: the hub's client costs half a second that every other command would pay
    import httpx2  # noqa: PLC0415
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    repository = model.source.hub or ""
    what = f"model {model.served_model_name}: {repository}"
    token = os.environ.get("HF_TOKEN") or None
    try:
        revision = HfApi(token=token).model_info(repository, revision=model.source.revision, timeout=30).sha
        # of one commit each: what was half fetched is resumed, and never mixed with another commit's files
        partial = folder.with_name(f"{revision}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        say(f"fetching {repository} at {revision} into {folder}")
        snapshot_download(repository, revision=revision, local_dir=partial, allow_patterns=PATTERNS, token=token)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        raise StackError(
            f"{what} could not be fetched: {(str(error) or repr(error)).splitlines()[0]}\n"
            "  A gated model needs HF_TOKEN in the environment of this command, a mirror HF_ENDPOINT; without a"
            " route to the hub copy the model here and use source.path. What came is kept and resumed."
        ) from None
    if not any(partial.glob("*.safetensors")):
        raise StackError(
            f"{what} has no *.safetensors at {revision}; weights in other formats can run code when they are loaded"
            " and are not fetched"
        )
    partial.rename(folder)
    _record(lock, repository, str(revision))


def _record(lock: Path, repository: str, revision: str) -> None:
    known = yaml.safe_load(lock.read_text()) if lock.is_file() else {}
    known = {**(known or {}), repository: revision}
    lock.write_text("# What was fetched: hub id -> commit, as the hub answered.\n" + yaml.safe_dump(known))
