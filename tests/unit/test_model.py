"""What a model's own config.json says, and what cannot be one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stack.models.config_json import MAX_BYTES, ModelFacts, ModelFilesError, read_facts


def facts_of(folder: Path, content: object) -> ModelFacts:
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_facts(folder)


@pytest.mark.parametrize(
    ("content", "heads", "architecture"),
    [
        ({"num_attention_heads": 32, "architectures": ["LlamaForCausalLM"]}, 32, "LlamaForCausalLM"),
        ({"num_attention_heads": 1, "text_config": {"num_attention_heads": 16}}, 16, None),
        ({"text_config": None, "num_attention_heads": 8}, 8, None),
        ({"architectures": []}, None, None),
        ({"architectures": [3]}, None, None),
        ({"architectures": "LlamaForCausalLM"}, None, None),
        ({}, None, None),
    ],
)
def test_numbers_are_read_where_they_are_said(
    tmp_path: Path, content: object, heads: int | None, architecture: str | None
) -> None:
    assert facts_of(tmp_path, content) == ModelFacts(heads, architecture)


@pytest.mark.parametrize("heads", [0, -1, 2**31, 1.5, "32", True, [32]])
def test_an_absurd_number_of_heads_is_refused_with_its_key(tmp_path: Path, heads: object) -> None:
    with pytest.raises(ModelFilesError, match="num_attention_heads"):
        facts_of(tmp_path, {"num_attention_heads": heads})


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "[" * 100_000, "\x00", "{'a': 1}"])
def test_what_is_not_a_json_object_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    with pytest.raises(ModelFilesError, match=r"config\.json: "):
        facts_of(tmp_path, content)


def test_a_config_that_is_far_too_large_is_refused_without_being_parsed(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="larger than"):
        facts_of(tmp_path, "[" * (MAX_BYTES + 1))


def test_files_that_lead_out_of_the_folder_are_named(tmp_path: Path) -> None:
    """Only the folder is mounted: an engine could not follow, as into a cache of links."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "blob").write_text("{}")
    (folder / "config.json").symlink_to("../blob")
    with pytest.raises(ModelFilesError, match=r"config\.json leads out of the folder"):
        read_facts(folder)
    (folder / "config.json").unlink()
    (folder / "real.json").write_text("{}")
    (folder / "config.json").symlink_to("real.json")
    assert read_facts(folder) == ModelFacts(None, None)


def test_a_folder_without_a_config_is_told_what_a_model_folder_holds(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="a model folder holds"):
        read_facts(tmp_path)
    with pytest.raises(ModelFilesError, match="not a folder"):
        read_facts(tmp_path / "nowhere")
