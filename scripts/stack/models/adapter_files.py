"""A LoRA adapter's folder: whether an engine could load it, and what the engine has to be told of it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from stack.models.config_json import MAX_BYTES, ModelFilesError, check_folder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_adapter(folder: Path) -> None:
    """Raise ModelFilesError unless the folder holds one adapter, whole, of the rank that its config says."""
    rank = read_rank(folder)
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if "lora_A" in name}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelFilesError(f"{path} is missing: an adapter's weights are needed as safetensors") from None
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(f"{path} is cut off or damaged ({error}); copy or fetch it again") from None
    if not shapes:
        raise ModelFilesError(f"{path} holds no lora_A weights: not a LoRA adapter")
    largest = max(shape[0] for shape in shapes.values())
    if largest > rank:
        raise ModelFilesError(f"{folder}: {CONFIG} says r: {rank}, the weights are of rank {largest}")


def read_rank(folder: Path) -> int:
    """The largest rank that ``adapter_config.json`` says. Raises ModelFilesError naming file and key."""
    check_folder(folder)
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_BYTES))
    except OSError as error:
        raise ModelFilesError(f"{path}: {error.strerror}; an adapter's folder holds {CONFIG} and {WEIGHTS}") from None
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("peft_type") != "LORA":
        raise ModelFilesError(f"{path}: peft_type is not LORA")
    pattern = document.get("rank_pattern") or {}
    ranks = [document.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and 0 < rank < 2**16 for rank in ranks):
        raise ModelFilesError(f"{path}: r is {document.get('r')!r}, a positive whole number is needed")
    return int(max(ranks))
