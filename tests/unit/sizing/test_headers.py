"""Headers of safetensors files: what is read of them, and what cannot be one."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stack.models.config_json import ModelFilesError
from stack.models.toy import make_toy_model
from stack.sizing.errors import CannotPlanError
from stack.sizing.headers import INDEX, Tensor, header_of, tensors_of
from stack.sizing.shapes import Quantization
from stack.sizing.weights import weights_of
from unit.sizing.fixtures import shape


def write(path: Path, tensors: dict[str, Any], room: int | None = None) -> None:
    """A safetensors file without weights: its header, and a hole as large as the header says."""
    raw = json.dumps(tensors).encode()
    ends = [entry["data_offsets"][1] for entry in tensors.values() if "data_offsets" in entry]
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + (max(ends, default=0) if room is None else room))


def tensor(begin: int, end: int, dtype: str = "BF16", shape_of: tuple[int, ...] = (2, 2)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape_of), "data_offsets": [begin, end]}


def test_every_tensor_of_a_real_file_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    make_toy_model(folder)
    found = tensors_of(folder)
    assert found is not None
    file = folder / "model.safetensors"
    header = struct.unpack("<Q", file.read_bytes()[:8])[0]
    assert sum(tensor.size for tensor in found) == file.stat().st_size - 8 - header
    assert {tensor.dtype for tensor in found} == {"F16"}


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    assert tensors_of(tmp_path) is None


def shards(folder: Path) -> None:
    write(folder / "a.safetensors", {"x": tensor(0, 8), "__metadata__": {"format": "pt"}})
    write(folder / "b.safetensors", {"y": tensor(0, 16)})
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))


def test_shards_are_added_up(tmp_path: Path) -> None:
    shards(tmp_path)
    assert sum(found.size for found in tensors_of(tmp_path) or ()) == 24


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object is needed"),
        ('{"weight_map": {}}', "weight_map must map"),
        ('{"weight_map": {"x": 3}}', "weight_map must map"),
        ('{"weight_map": {"x": "../a.safetensors"}}', r"weight_map names \.\./a\.safetensors"),
        ('{"weight_map": {"x": "a.safetensors", "y": "c.safetensors"}}', "names c.safetensors, which is not in"),
        (
            '{"weight_map": {"x": "b.safetensors", "y": "b.safetensors"}}',
            "x is in b.safetensors, whose header does not",
        ),
        (
            '{"weight_map": {"x": "a.safetensors", "z": "a.safetensors"}}',
            "z is in a.safetensors, whose header does not",
        ),
    ],
)
def test_an_index_that_disagrees_is_an_error_with_the_file(tmp_path: Path, index: str, words: str) -> None:
    shards(tmp_path)
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(ModelFilesError, match=words) as error:
        tensors_of(tmp_path)
    assert INDEX in str(error.value)


def test_a_tensor_that_the_index_forgot_is_an_error(tmp_path: Path) -> None:
    shards(tmp_path)
    write(tmp_path / "b.safetensors", {"y": tensor(0, 16), "z": tensor(16, 24)})
    with pytest.raises(ModelFilesError, match=r"b\.safetensors: has z, which"):
        tensors_of(tmp_path)


def test_the_same_tensor_in_two_files_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", {"x": tensor(0, 8)})
    with pytest.raises(ModelFilesError, match="x is in another file too"):
        tensors_of(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 7, struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 100) + b"{}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 4) + b"{{{{", struct.pack("<Q", 8) + b'{"a": 3}'],
)  # fmt: skip
def test_what_is_no_safetensors_file_is_an_error_with_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"model\.safetensors: "):
        tensors_of(tmp_path)


@pytest.mark.parametrize(
    ("entry", "room"),
    [(tensor(-1, 8), 8), (tensor(8, 0), 8), (tensor(0, 10**30), 8), (tensor(0, 8), 4), (tensor(0, 8), 16),
     ({**tensor(0, 8), "shape": "2x2"}, 8), ({**tensor(0, 8), "dtype": 16}, 8), ({"dtype": "F16"}, 0),
     ({**tensor(0, 8), "data_offsets": [0, True]}, 8)],
)  # fmt: skip
def test_offsets_that_cannot_be_are_an_error(tmp_path: Path, entry: dict[str, Any], room: int) -> None:
    write(tmp_path / "model.safetensors", {"x": entry}, room)
    with pytest.raises(ModelFilesError, match=r"model\.safetensors: "):
        header_of(tmp_path / "model.safetensors")


def stored(name: str, size: int, rows: int = 2, dtype: str = "BF16") -> Tensor:
    return Tensor(name, dtype, (rows, rows) if rows else (4,), size)


def test_ranks_share_matrices_copy_norms_and_split_heads_as_far_as_there_are_some() -> None:
    tensors = [
        stored("model.layers.0.mlp.up_proj.weight", 800),
        stored("model.layers.0.input_layernorm.weight", 10, rows=0),
        stored("model.layers.0.mlp.gate.weight", 6),
        stored("model.layers.0.self_attn.k_proj.weight", 160),
    ]
    weights = weights_of(shape("llama-3-8b"), tensors)  # 8 heads of keys
    assert weights.total == 976
    assert not weights.estimated
    assert weights.per_gpu(1) == 976
    assert weights.per_gpu(8) == 100 + 16 + 20
    assert weights.per_gpu(16) == 50 + 16 + 20


def test_what_is_in_the_files_but_not_loaded_is_not_counted() -> None:
    tensors = [
        stored("model.layers.60.mlp.up_proj.weight", 100),
        stored("model.layers.61.mlp.up_proj.weight", 1000),  # the speculative layer behind the last
        stored("mtp.layers.0.up_proj.weight", 1000),
        stored("model.layers.0.self_attn.rotary_emb.inv_freq", 1000, rows=0),
    ]
    assert weights_of(shape("deepseek-v3"), tensors).total == 100
    assert weights_of(shape("gemma-2-9b"), [stored("lm_head.weight", 1000)]).total == 0  # tied to the embeddings


def test_16_bit_files_that_are_rounded_while_loading_take_half() -> None:
    plain = shape("llama-3-8b")
    rounded = replace(plain, quantization=Quantization("fp8", 8, activations="fp8", on_load=True))
    files = [stored("model.layers.0.mlp.up_proj.weight", 2 * plain.parameters)]
    assert weights_of(rounded, files).total == 2 * plain.parameters - plain.linear


def test_an_estimate_says_that_it_is_one() -> None:
    weights = weights_of(shape("llama-3-8b"), None)
    assert weights.estimated
    assert "estimate" in weights.how


def test_a_quantization_that_is_not_known_needs_the_files() -> None:
    unknown = replace(shape("llama-3-8b"), quantization=Quantization("of-tomorrow", 0))
    with pytest.raises(CannotPlanError, match="of-tomorrow"):
        weights_of(unknown, None)
    assert weights_of(unknown, [stored("model.layers.0.mlp.up_proj.weight", 7)]).total == 7
