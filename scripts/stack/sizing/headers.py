"""What the weight files hold, from their headers alone: each tensor's type, shape and size. No weight is read.

The format: 8 bytes with the header's length, then JSON (github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.models.config_json import ModelFilesError, json_object

INDEX = "model.safetensors.index.json"
# The library's own bound on a header; an index of a model of thousands of experts is some 10 MB.
MAX_HEADER = 100_000_000
MAX_SHARDS = 2000


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: bytes it takes there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def tensors_of(folder: Path) -> tuple[Tensor, ...] | None:
    """Every tensor of the model's safetensors files; None where the folder has none.

    Raises ModelFilesError, naming file and key: a shard that is missing or cut short, a header that is none, an index
    that says otherwise than the headers.
    """
    index = folder / INDEX
    if index.exists():
        return _indexed(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    # Mistral's own layout of the same weights, beside the one that every engine reads
    files = [path for path in files if not path.name.startswith("consolidated")] or files
    if not files:
        return None
    found: dict[str, Tensor] = {}
    for path in files:
        for tensor in header_of(path):
            if tensor.name in found:
                raise ModelFilesError(f"{path}: {tensor.name} is in another file too, and there is no {INDEX}")
            found[tensor.name] = tensor
    return tuple(found.values())


def header_of(path: Path) -> list[Tensor]:
    """The tensors of one file. Raises ModelFilesError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ModelFilesError(f"{path}: not a safetensors file, or cut short (header of {length} bytes)")
            raw = file.read(length)
    except OSError as error:
        raise ModelFilesError(f"{path}: {error.strerror}") from None
    document = json_object(raw, path)
    document.pop("__metadata__", None)
    tensors = [_tensor(path, name, entry, size - 8 - length) for name, entry in document.items()]
    total = sum(tensor.size for tensor in tensors)
    if total != size - 8 - length:
        raise ModelFilesError(f"{path}: its header names {total} bytes of weights, the file holds {size - 8 - length}")
    return tensors


def _indexed(folder: Path, index: Path) -> tuple[Tensor, ...]:
    try:
        with index.open("rb") as file:
            raw = file.read(MAX_HEADER + 1)
    except OSError as error:
        raise ModelFilesError(f"{index}: {error.strerror}") from None
    if len(raw) > MAX_HEADER:
        raise ModelFilesError(f"{index}: larger than {MAX_HEADER} bytes")
    places = json_object(raw, index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise ModelFilesError(f"{index}: weight_map must map tensor names to file names")
    shards = sorted(set(places.values()))
    strays = [shard for shard in shards if Path(shard).name != shard]
    if strays or len(shards) > MAX_SHARDS:
        raise ModelFilesError(f"{index}: weight_map names {strays[0] if strays else len(shards)} as files")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelFilesError(f"{index}: weight_map names {missing[0]}{more}, which is not in {folder}")
    found = {tensor.name: (shard, tensor) for shard in shards for tensor in header_of(folder / shard)}
    for name, shard in places.items():
        if found.get(name, ("", None))[0] != shard:
            raise ModelFilesError(f"{index}: weight_map says that {name} is in {shard}, whose header does not have it")
    unknown = sorted(set(found) - set(places))
    if unknown:
        raise ModelFilesError(f"{folder / found[unknown[0]][0]}: has {unknown[0]}, which {INDEX} does not name")
    return tuple(tensor for _, tensor in found.values())


def _tensor(path: Path, name: str, entry: Any, room: int) -> Tensor:
    known = entry if isinstance(entry, dict) else {}
    shape, offsets = _counts(known.get("shape")), _counts(known.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or not isinstance(known.get("dtype"), str):
        raise ModelFilesError(f"{path}: {name[:80]}: dtype, shape and data_offsets are needed")
    begin, end = offsets
    if not begin <= end <= room:
        raise ModelFilesError(f"{path}: {name[:80]}: data_offsets {begin}-{end} are not in the file")
    return Tensor(name, known["dtype"], shape, end - begin)


def _counts(value: Any) -> tuple[int, ...] | None:
    whole = isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
    return tuple(value) if whole else None
