"""Whether a folder is a whole model: shards, headers, tokenizer, and a config.json that the weights agree with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from stack.models.config_json import ModelFilesError
from stack.models.files import check_model, is_safe_name, wanted
from stack.models.toy import make_toy_model

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "toy"
    make_toy_model(folder)
    return folder


@pytest.fixture
def model(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "model"))


def shard(folder: Path) -> None:
    """Constructed: two shards and their index in the place of the one file."""
    (folder / "model.safetensors").unlink()
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for tensor, name in names.items():
        save_file({f"model.layers.1.{tensor}": np.zeros(4, dtype=np.float16)}, folder / name)
    weight_map = {f"model.layers.1.{tensor}": name for tensor, name in names.items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def says(folder: Path, **keys: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))


def cut(path: Path, length: int) -> None:
    with path.open("r+b") as file:
        file.truncate(length)


def test_one_file_and_shards_with_an_index_are_models(model: Path) -> None:
    check_model(model)
    shard(model)
    check_model(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m / "model.safetensors").unlink(), r"has no weights as \*\.safetensors$"),
        (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), r"pytorch_model\.bin can run code"),
        (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda m: (m / "config.json").unlink(), r"config\.json: No such file"),
        (lambda m: cut(m / "model.safetensors", 100_000), r"model\.safetensors is cut off or damaged"),
        (lambda m: cut(m / "model.safetensors", 5), r"model\.safetensors is cut off or damaged"),
        (lambda m: says(m, num_hidden_layers=4), "num_hidden_layers is 4, the weights hold 2"),
        (lambda m: says(m, hidden_size=512), r"are \[261, 512\], model\.embed_tokens\.weight is \[261, 256\]"),
        (lambda m: says(m, vocab_size=32000), r"vocab_size and hidden_size are \[32000, 256\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(model: Path, change: Change, message: str) -> None:
    change(model)
    with pytest.raises(ModelFilesError, match=message):
        check_model(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m / "model-00002-of-00002.safetensors").unlink(), "names 1 files that are not there: model-00002"),
        (lambda m: shutil.copy(m / "model-00001-of-00002.safetensors", m / "model-00002-of-00002.safetensors"),
         r"says that model-00002.* holds model\.layers\.1\.b, and it does not"),
        (lambda m: (m / "model.safetensors.index.json").write_text("{}"), "names no shards"),
        (lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}'), "names no shards"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_shards_is_named(model: Path, change: Change, message: str) -> None:
    shard(model)
    change(model)
    with pytest.raises(ModelFilesError, match=message):
        check_model(model)


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 1},  # a layer that predicts further ahead
        {"text_config": {"hidden_size": 512}, "num_hidden_layers": 9},
        {"vocab_size": None},
        {"word_embed_proj_dim": 128, "hidden_size": 512},
    ],
)
def test_what_cannot_be_judged_is_left_to_the_engine(model: Path, keys: dict[str, Any]) -> None:
    says(model, **keys)
    check_model(model)


def test_an_engine_gets_weights_and_texts_and_no_code() -> None:
    useful = ["config.json", "merges.txt", "model-1.safetensors", "tokenizer.model", "1_Pooling/config.json", "t.jinja",
              "tokenizer.model.v3"]  # fmt: skip
    useless = [
        ".gitattributes",
        ".cache/x.json",
        "a.py",
        "pytorch_model.bin",
        "original/model.safetensors",
        "README.md",
    ]
    assert wanted([*useful, *useless]) == sorted(useful)


def test_weights_that_are_there_twice_come_once() -> None:
    mistral = ["consolidated.safetensors", "params.json"]
    assert wanted([*mistral, "model.safetensors"]) == ["model.safetensors", "params.json"]
    assert wanted(mistral) == mistral


@pytest.mark.parametrize("name", ["/etc/x.json", "../x.json", "a/../../x.json", "a\\b.json", "a\nb.json"])
def test_a_name_that_could_lead_elsewhere_is_not_safe(name: str) -> None:
    assert not is_safe_name(name)
    assert is_safe_name("a/b.json")
