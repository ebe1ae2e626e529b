"""config.json files of real models: what they hold, and what the plan makes of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from stack.config.model import Model
from stack.models.config_json import MAX_BYTES, ModelFilesError
from stack.sizing.architecture import shape_of
from stack.sizing.errors import CannotPlanError
from stack.sizing.families import FAMILIES, REFUSED
from stack.sizing.fields import LARGEST
from stack.sizing.files import Known, Unknown, known
from unit import given
from unit.sizing.fixtures import NAMES, config, fixture, shape

# Parameters that the makers publish, in 1e9: model cards and papers.
PUBLISHED = {
    "deepseek-v2-lite": 15.7, "deepseek-v3": 671, "exaone-4.0-32b": 32.0, "gemma-2-9b": 9.24, "gemma-3-12b": 11.8,
    "gemma-3-27b": 27.0,
    "glm-4-9b-0414": 9.4, "gpt-oss-120b": 116.8, "gpt-oss-20b": 20.9, "granite-3.3-8b": 8.17,
    "granite-4.0-h-small": 32.2, "kimi-k2": 1026, "llama-2-70b": 68.98, "llama-2-7b": 6.74,
    "llama-3-8b": 8.03, "llama-3.1-405b": 405.9,
    "llama-3.1-70b": 70.55, "llama-3.1-8b": 8.03, "llama-4-scout": 107.8, "minimax-m2.5": 229, "mistral-7b-v0.3": 7.25,
    "mistral-small-24b": 23.57, "mixtral-8x7b": 46.7, "nemotron-3-nano-30b-a3b": 31.6, "nemotron-h-56b": 56.3,
    "olmo-2-7b": 7.30, "olmo-3.1-32b": 32.2, "phi-4": 14.66, "qwen2.5-7b": 7.62, "qwen3-0.6b": 0.596,
    "qwen3-235b-fp8": 235.1, "qwen3-30b-a3b": 30.5, "qwen3-32b": 32.76, "qwen3-8b": 8.19, "qwen3-next-80b-a3b": 79.7,
    "falcon-7b": 6.92,
}  # fmt: skip
# Parameters of one token, likewise, with the output head and without the embedding table.
ACTIVE = {"deepseek-v3": 37, "gpt-oss-20b": 3.6, "gpt-oss-120b": 5.1, "mixtral-8x7b": 12.9, "qwen3-30b-a3b": 3.3,
          "qwen3-235b-fp8": 22, "nemotron-3-nano-30b-a3b": 3.5, "granite-4.0-h-small": 9,
          "llama-4-scout": 17}  # fmt: skip


def planned() -> list[str]:
    """Fixtures of architectures that the plan covers."""
    return [name for name in NAMES if config(name)["architectures"][0] in FAMILIES]


def changed(name: str, **keys: Any) -> dict[str, Any]:
    """A fixture's config.json with keys of its language model changed."""
    document = copy.deepcopy(config(name))
    document.get("text_config", document).update(keys)
    return document


def test_at_least_twenty_architectures_are_seen_on_real_files() -> None:
    seen = {config(name)["architectures"][0] for name in planned()}
    assert len(seen) >= 20
    recorded = {config(name)["architectures"][0] for name in planned() if fixture(name)["kind"] == "recorded"}
    assert len(recorded) >= 20
    assert set(FAMILIES) - seen == {"Gemma3ForCausalLM"}  # the same layers as the one that sees


@pytest.mark.parametrize("name", NAMES)
def test_a_fixture_says_what_it_is_and_where_it_is_from(name: str) -> None:
    document = fixture(name)
    assert document["kind"] in {"recorded", "constructed"}
    assert document["source"]
    assert document["kind"] == "recorded" or document.get("note") or "with" in document["source"]
    assert len(json.dumps(document)) < 6000


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_the_published_ones(name: str) -> None:
    assert shape(name).parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.006)


@pytest.mark.parametrize("name", sorted(ACTIVE))
def test_active_parameters_are_about_the_published_ones(name: str) -> None:
    """Makers count embeddings differently: within a tenth."""
    assert shape(name).active / 1e9 == pytest.approx(ACTIVE[name], rel=0.10)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama-3.1-8b", {"full": 32}),
        ("falcon-7b", {"full": 32}),
        ("gemma-2-9b", {"full": 21, "sliding": 21}),
        ("gemma-3-12b", {"full": 8, "sliding": 40}),
        ("gpt-oss-120b", {"full": 18, "sliding": 18}),
        ("olmo-3.1-32b", {"full": 16, "sliding": 48}),
        ("deepseek-v3", {"latent": 61}),
        ("qwen3-next-80b-a3b", {"full": 12, "state": 36}),
        ("qwen3.5-27b", {"full": 16, "state": 48}),
        ("nemotron-h-56b", {"full": 10, "state": 54}),
        ("granite-4.0-h-small", {"full": 4, "state": 36}),
        ("llama-4-scout", {"full": 48}),
    ],
)
def test_layers_keep_what_their_kind_keeps(name: str, kinds: dict[str, int]) -> None:
    assert {layer.kind: count for layer, count in shape(name).layers} == kinds


@pytest.mark.parametrize(
    ("name", "length"),
    [("llama-3.1-8b", 131072), ("deepseek-v3", 163840), ("gpt-oss-20b", 131072), ("gemma-3-12b", 131072),
     ("olmo-3.1-32b", 65536), ("falcon-7b", 2048), ("qwen3-vl-8b", 262144), ("phi-4", 16384)],
)  # fmt: skip
def test_the_longest_context_is_the_engines(name: str, length: int) -> None:
    assert shape(name).max_length == length


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(planned())))
def test_what_is_not_covered_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(CannotPlanError, match=REFUSED[config(name)["architectures"][0]]):
        shape(name)


def test_an_unknown_architecture_is_not_guessed() -> None:
    with pytest.raises(CannotPlanError, match="NovelForCausalLM is not an architecture that the plan knows"):
        shape_of(changed("llama-3-8b", architectures=["NovelForCausalLM"]), "config.json")


def test_mixed_windows_that_no_formula_covers_are_refused() -> None:
    with pytest.raises(CannotPlanError, match="max_window_layers"):
        shape_of(changed("qwen2.5-7b", use_sliding_window=True), "config.json")


@pytest.mark.parametrize("value", [0, -1, LARGEST + 1, 1.5, "32", True, [32], float("inf"), 10**400])
@pytest.mark.parametrize(
    ("name", "key"),
    [("llama-3-8b", "hidden_size"), ("llama-3-8b", "num_hidden_layers"), ("llama-3-8b", "vocab_size"),
     ("llama-3-8b", "num_key_value_heads"), ("deepseek-v3", "kv_lora_rank"), ("mixtral-8x7b", "num_experts_per_tok"),
     ("qwen3-next-80b-a3b", "linear_key_head_dim"), ("gemma-3-12b", "sliding_window")],
)  # fmt: skip
def test_an_absurd_number_is_an_error_with_file_and_key(name: str, key: str, value: object) -> None:
    with pytest.raises(ModelFilesError, match=rf"config\.json: .*{key} is "):
        shape_of(changed(name, **{key: value}), "/m/config.json")


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_hidden_layers", "intermediate_size"])
def test_a_missing_number_is_an_error_with_file_and_key(key: str) -> None:
    document = changed("llama-3-8b")
    del document[key]
    with pytest.raises(ModelFilesError, match=rf"/m/config\.json: .*{key}.* is missing"):
        shape_of(document, "/m/config.json")


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("llama-3-8b", {"num_key_value_heads": 7}, "num_key_value_heads is 7, which does not divide 32"),
        ("olmo-3.1-32b", {"layer_types": ["full_attention"]}, "layer_types has 1 entries for 64 layers"),
        ("olmo-3.1-32b", {"layer_types": None}, "layer_types is missing"),
        ("nemotron-h-56b", {"hybrid_override_pattern": "MX"}, "hybrid_override_pattern must be 118 letters"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "num_experts_per_tok is 9, but there are 8 experts"),
        ("llama-3.1-8b", {"rope_scaling": {"rope_type": "yarn", "factor": -4}}, "factor is -4"),
        ("llama-3-8b", {"architectures": []}, "architectures is missing"),
        ("llama-3-8b", {"torch_dtype": "int4"}, "torch_dtype is 'int4'"),
        ("llama-3-8b-awq", {"quantization_config": {"quant_method": "awq", "bits": 64}}, "bits is 64"),
        ("llama-3-8b", {"quantization_config": [4]}, "quantization_config is"),
        ("gemma-2-9b", {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
    ],
)
def test_what_contradicts_itself_is_an_error_with_its_key(name: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFilesError, match=words):
        shape_of(changed(name, **keys), "config.json")


@pytest.mark.parametrize(
    ("quantization", "method", "bits"),
    [
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq", 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt", 4),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}}},
         "compressed-tensors", 8),
        ({"quant_method": "of-tomorrow"}, "of-tomorrow", 0),
    ],
)  # fmt: skip
def test_quantization_is_what_the_file_says(quantization: dict[str, Any], method: str, bits: int) -> None:
    rule = shape_of(changed("llama-3-8b", quantization_config=quantization), "config.json").quantization
    assert rule is not None
    assert (rule.method, rule.bits) == (method, bits)


def model(**keys: Any) -> Model:
    return given.config(given.toy(**keys)).models[0]


def test_files_give_shape_and_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config("qwen3-8b")))
    found = known(tmp_path, model())
    assert isinstance(found, Known)
    assert found.weights.estimated


def test_an_unknown_model_is_known_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config("glm-5")))
    assert known(tmp_path, model()) == Unknown(
        "GlmMoeDsaForCausalLM cannot be planned: its sparse attention keeps an indexer's cache beside the latent one"
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"architectures": ["LlamaForCausalLM"', " " * (MAX_BYTES + 1)])
def test_a_truncated_or_huge_config_is_an_error_with_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"config\.json: "):
        known(tmp_path, model())
