"""Which files make up a model, and whether a folder holds all of them, whole and of one model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from stack.models.config_json import ModelFilesError, read_facts

WEIGHTS = ".safetensors"
INDEX = ".safetensors.index.json"
# pickle runs code when it is loaded; the others are formats of other engines
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".gguf", ".onnx")
TEXTS = (".json", ".jinja", ".txt", ".model", ".tiktoken")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte)\.weight$")
_FLOATS = ("F16", "BF16", "F32")  # packed weights have shapes of their own


def wanted(names: Iterable[str]) -> list[str]:
    """The files of a repository or an archive that an engine needs: weights as safetensors, texts, no code."""
    known = sorted(names)
    weights = [name for name in known if name.endswith(WEIGHTS) and "/" not in name]
    # Mistral's own layout of the same weights, beside the one that every engine reads
    twice = [name for name in weights if name.startswith("consolidated")]
    if len(twice) < len(weights):
        weights = [name for name in weights if name not in twice]
        known = [name for name in known if not (name.startswith("consolidated") and name.endswith(INDEX))]
    return sorted([*weights, *(name for name in known if _is_text(name))])


def is_safe_name(name: str) -> bool:
    """Whether a file of this name lands inside the folder that it is written into."""
    path = PurePosixPath(name)
    return name.isprintable() and "\\" not in name and not path.is_absolute() and ".." not in path.parts


def check_model(folder: Path) -> None:
    """Raise ModelFilesError unless an engine could load the folder. Reads the headers of the weights, not the weights.

    The index names every shard and each is there; each safetensors file is as long as its header says; config.json and
    a tokenizer are there; the number of layers, the hidden size and the vocabulary are the ones of config.json.
    """
    read_facts(folder)
    names = [path.name for path in folder.iterdir()]
    weights = sorted(name for name in names if name.endswith(WEIGHTS))
    if not weights:
        others = [name for name in sorted(names) if name.endswith(OTHER_WEIGHTS)]
        found = f"; {', '.join(others[:3])} can run code when loaded, or is no format of vLLM's" if others else ""
        raise ModelFilesError(f"{folder} has no weights as *{WEIGHTS}{found}")
    if not any(name in TOKENIZERS or name.endswith(".tiktoken") for name in names):
        raise ModelFilesError(f"{folder} has no tokenizer ({', '.join(TOKENIZERS[:3])} ...)")
    held = {name: _tensors(folder / name) for name in weights}
    for index in sorted(name for name in names if name.endswith(INDEX)):
        _check_index(folder / index, held)
    _check_config(folder, [tensor for name in held for tensor in held[name].items()])


def _is_text(name: str) -> bool:
    *folders, last = name.split("/")
    hidden = any(part.startswith(".") for part in (*folders, last))
    return not hidden and (last.endswith(TEXTS) or last.startswith("tokenizer.model"))  # tokenizer.model.v3


def _tensors(path: Path) -> dict[str, list[int] | None]:
    """Name -> shape of a file's tensors; the shape only of embeddings as plain numbers."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors: dict[str, list[int] | None] = {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name) if _EMBEDDING.search(name) else None
                tensors[name] = list(part.get_shape()) if part is not None and part.get_dtype() in _FLOATS else None
            return tensors
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(f"{path} is cut off or damaged ({error}); copy or fetch it again") from None


def _check_index(index: Path, held: Mapping[str, Mapping[str, object]]) -> None:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        named = {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ModelFilesError(f"{index} names no shards ({type(error).__name__}: {error})") from None
    missing = sorted(set(named.values()) - set(held))
    if missing:
        raise ModelFilesError(f"{index} names {len(missing)} files that are not there: {', '.join(missing[:3])}")
    lost = sorted(tensor for tensor, shard in named.items() if tensor not in held[shard])
    if lost:
        raise ModelFilesError(f"{index} says that {named[lost[0]]} holds {lost[0]}, and it does not: not of one model")


def _check_config(folder: Path, tensors: list[tuple[str, list[int] | None]]) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    parts = [key for key in config if key.endswith("_config") and key != "quantization_config"]
    if any(isinstance(config[key], dict) for key in parts):
        return  # several models in one: whose layers and sizes these are is not ours to guess
    for problem in (*_layers(config, [name for name, _ in tensors]), *_sizes(config, dict(tensors))):
        raise ModelFilesError(f"{folder}: config.json and the weights are not of one model: {problem}")


def _layers(config: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    said = config.get("num_hidden_layers")
    numbers = [int(match[1]) for name in names if (match := _LAYER.search(name))]
    # more than said is right: layers that predict several tokens ahead come after the last one
    if isinstance(said, int) and numbers and max(numbers) + 1 < said:
        yield f"num_hidden_layers is {said}, the weights hold {max(numbers) + 1}"


def _sizes(config: Mapping[str, Any], shapes: Mapping[str, list[int] | None]) -> Iterator[str]:
    said = [config.get("vocab_size"), config.get("hidden_size")]
    if "word_embed_proj_dim" in config or not all(isinstance(number, int) for number in said):
        return
    for name, shape in shapes.items():
        if shape is not None and shape != said:
            yield f"vocab_size and hidden_size are {said}, {name} is {shape}"
