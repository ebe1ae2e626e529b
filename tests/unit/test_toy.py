"""The toy model: made once, all or nothing, the same everywhere, and a model that an engine can load."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from safetensors import safe_open
from tokenizers import Tokenizer

from stack.models.config_json import read_facts
from stack.models.fetch import ensure_models
from stack.models.toy import SPECIAL, make_toy_model
from unit import given


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy"
    assert make_toy_model(folder)
    return folder


def config(model: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model / "config.json").read_text())
    return content


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    assert make_toy_model(folder)
    (folder / "model.safetensors").write_bytes(b"mine")
    assert not make_toy_model(folder)
    assert (folder / "model.safetensors").read_bytes() == b"mine"


def test_it_is_the_same_bytes_everywhere(model: Path, tmp_path: Path) -> None:
    make_toy_model(tmp_path / "another")
    assert content(tmp_path / "another") == content(model)


def test_what_a_killed_run_left_is_replaced(model: Path, tmp_path: Path) -> None:
    for left in ("toy.partial", "toy"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "model.safetensors").write_bytes(b"half")
        (tmp_path / left / "odd").write_bytes(b"x")
    assert make_toy_model(tmp_path / "toy")
    assert content(tmp_path / "toy") == content(model)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_run_that_fails_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stack.models.toy.save_file", full)
    with pytest.raises(OSError, match="No space"):
        make_toy_model(tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_the_engines_user_may_read_it(model: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in model.iterdir()} == {0o644}


def test_its_weights_have_the_shapes_that_its_config_says(model: Path) -> None:
    says = config(model)
    hidden, heads, vocabulary = says["hidden_size"], says["num_attention_heads"], says["vocab_size"]
    key_value = says["num_key_value_heads"] * says["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [heads * says["head_dim"], hidden],
        "self_attn.k_proj": [key_value, hidden],
        "self_attn.v_proj": [key_value, hidden],
        "self_attn.o_proj": [hidden, heads * says["head_dim"]],
        "mlp.gate_proj": [says["intermediate_size"], hidden],
        "mlp.up_proj": [says["intermediate_size"], hidden],
        "mlp.down_proj": [hidden, says["intermediate_size"]],
    }
    expected = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(says["num_hidden_layers"])
        for name, shape in layer.items()
    }
    expected |= {"model.embed_tokens.weight": [vocabulary, hidden], "lm_head.weight": [vocabulary, hidden]}
    expected |= {"model.norm.weight": [hidden]}
    with safe_open(model / "model.safetensors", framework="numpy") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - not a mapping
        assert {name: part.get_shape() for name, part in slices.items()} == expected
        assert {part.get_dtype() for part in slices.values()} == {"F16"}
    assert says["torch_dtype"] == "float16"


def test_its_head_size_is_one_that_vllm_takes_and_its_plan_does_too(model: Path) -> None:
    says = config(model)
    assert says["head_dim"] in (32, 64, 80, 96, 112, 128, 256)
    facts = read_facts(model)
    assert (facts.attention_heads, facts.architecture) == (says["num_attention_heads"], "LlamaForCausalLM")


@pytest.mark.parametrize("text", ["Hello, world!", "Grüße 日本 😀", "\x00\x7f\n\t", ""])
def test_its_tokenizer_knows_every_text_and_no_token_beyond_the_weights(model: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokens.ids) == text
    assert len(tokens.ids) == len(text.encode())
    assert tokenizer.get_vocab_size() == config(model)["vocab_size"]


def test_its_special_tokens_are_the_ones_that_its_config_names(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    assert tokenizer.token_to_id(settings["bos_token"]) == config(model)["bos_token_id"]
    assert tokenizer.token_to_id(settings["eos_token"]) == config(model)["eos_token_id"]
    assert all(tokenizer.encode(token).tokens == [token] for token in SPECIAL)


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_its_chat_template_marks_every_role_with_a_special_token(model: Path, role: str) -> None:
    template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    messages = [{"role": role, "content": "Hi"}]
    prompt = Environment().from_string(template).render(messages=messages, add_generation_prompt=True)
    tokens = Tokenizer.from_file(str(model / "tokenizer.json")).encode(prompt).tokens
    assert tokens == ["<|begin|>", f"<|{role}|>", "H", "i", "<|end|>", "<|assistant|>"]


def test_every_answer_is_printable(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    with safe_open(model / "model.safetensors", framework="numpy") as weights:
        head = weights.get_tensor("lm_head.weight")
    speaking = [number for number in range(len(head)) if head[number].any()]
    assert len(speaking) == 94
    assert all(tokenizer.decode([number]).isprintable() for number in speaking)


def test_a_stack_tells_of_the_toy_model_only_when_it_is_made(tmp_path: Path) -> None:
    said: list[str] = []
    stack = given.config(given.toy(), given.toy(served_model_name="again"))
    ensure_models(stack, tmp_path, said.append)
    ensure_models(stack, tmp_path, said.append)
    assert len(said) == 1
    assert given.plan(stack, root=tmp_path).engines[0].model_dir in said[0]
