"""LoRA adapters and embedding models: from the stack file to the engine's flags, mounts and the gateway's names."""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from stack.errors import InputError, StackError
from stack.gateway_state import GatewayState
from stack.inputs import add_arguments, gather
from stack.models.adapter_files import check_adapter, read_rank
from stack.models.config_json import ModelFilesError
from stack.models.fetch import ensure_models
from stack.models.toy import HIDDEN, make_toy_adapter, make_toy_model
from stack.render import render
from stack.yaml_input import parsed
from stacks import ROOT
from unit import given
from unit.conftest import WriteStack

TOY_ADAPTER = {"name": "toy-sql", "source": {"toy": True}}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    make_toy_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


# Flags, mounts, names


def test_adapters_become_flags_and_read_only_mounts_in_the_same_order() -> None:
    adapters = [{"name": name, "source": {"path": f"/srv/{name}"}} for name in ("b", "a")]
    (engine,) = given.plan(given.config(given.toy(lora_adapters=adapters, max_lora_rank=64))).engines
    words = " ".join(engine.argv)
    assert "--enable-lora --max-loras 2 --max-lora-rank 64 --lora-modules b=/adapters/0 a=/adapters/1" in words
    plan = given.plan(given.config(given.toy(lora_adapters=adapters)))
    tree = render(plan, GatewayState(), ROOT)
    mounts = parsed(tree["compose.yaml"])["services"][engine.name]["volumes"]
    assert [mount for mount in mounts if "/adapters/" in mount] == ["/srv/b:/adapters/0:ro", "/srv/a:/adapters/1:ro"]


def test_a_model_without_adapters_has_no_flag_of_them() -> None:
    (engine,) = given.plan(given.config()).engines
    assert not {"--enable-lora", "--lora-modules", "--max-loras", "--runner"} & set(engine.argv)
    assert engine.environment["TASK"] == "generate"


def test_an_embedding_model_runs_as_one_and_its_health_check_knows() -> None:
    (engine,) = given.plan(given.config(given.toy(task="embed"))).engines
    assert engine.argv[engine.argv.index("--runner") + 1] == "pooling"
    assert engine.environment["TASK"] == "embed"


def test_the_gateway_leads_an_adapters_name_to_its_models_pool() -> None:
    stack = given.config(
        given.toy(lora_adapters=[TOY_ADAPTER]), given.toy(served_model_name="other", task="embed"),
        gateway={"api_keys": [{"name": "sql", "models": ["toy-sql"]}]},
    )  # fmt: skip
    names = json.loads(render(given.plan(stack), GatewayState({"0" * 64: "sql"}), ROOT)["nginx/models.json"])
    assert {name: (entry["pool"], entry["task"]) for name, entry in names.items()} == {
        "toy": ("toy", "generate"),
        "toy-sql": ("toy", "generate"),
        "other": ("other", "embed"),
    }


@pytest.mark.parametrize(
    ("models", "wheres"),
    [
        ([given.toy(lora_adapters=[{**TOY_ADAPTER, "name": "toy"}])], ["models[0].lora_adapters[0].name"]),
        (
            [given.toy(lora_adapters=[TOY_ADAPTER]), given.toy(served_model_name="toy-sql")],
            ["models[1].served_model_name"],
        ),
        ([given.toy(task="embed", lora_adapters=[TOY_ADAPTER])], ["models[0].lora_adapters"]),
        (
            [given.toy(source={"path": "/m"}, lora_adapters=[TOY_ADAPTER])],
            ["models[0].lora_adapters[0].source.toy"],
        ),
        ([given.toy(max_lora_rank=17)], ["models[0].max_lora_rank"]),
        ([given.toy(task="classify")], ["models[0].task"]),
        ([given.toy(extra_args=["--lora-modules", "x=/x"])], ["models[0].extra_args"]),
        ([given.toy(extra_args=["--runner=pooling"])], ["models[0].extra_args"]),
    ],
)
def test_what_cannot_be_is_refused_at_its_key(
    write_stack: WriteStack, models: list[dict[str, Any]], wheres: list[str]
) -> None:
    path = write_stack(yaml.safe_dump({"device": "cpu", "models": models}))
    with pytest.raises(InputError) as error:
        gather_from(path)
    assert given.wheres(error.value) == wheres


def gather_from(path: Path) -> Any:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return gather(parser.parse_args([str(path)]))


# Files


def test_the_toy_adapter_is_whole_and_fits_the_toy_model(adapter: Path) -> None:
    check_adapter(adapter)
    assert not make_toy_adapter(adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {weight.shape[1] for name, weight in weights.items() if "lora_A" in name} == {HIDDEN}
    assert all(weight.any() for weight in weights.values())


def change(folder: Path, **keys: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"r": 4}, r"says r: 4, the weights are of rank 8"),
        ({"r": 0}, r"r is 0"),
        ({"r": "8"}, r"r is '8'"),
        ({"r": True}, r"r is True"),
        ({"peft_type": "IA3"}, r"peft_type is not LORA"),
        ({"rank_pattern": {"q_proj": -1}}, r"a positive whole number"),
    ],
)
def test_an_adapter_whose_config_disagrees_with_its_weights_is_refused(
    adapter: Path, keys: dict[str, Any], said: str
) -> None:
    change(adapter, **keys)
    with pytest.raises(ModelFilesError, match=said):
        check_adapter(adapter)


def test_a_rank_pattern_counts(adapter: Path) -> None:
    change(adapter, rank_pattern={"q_proj": 32})
    assert read_rank(adapter) == 32


def test_missing_cut_and_foreign_files_are_named(adapter: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(ModelFilesError, match="cut off or damaged"):
        check_adapter(adapter)
    weights.write_bytes(whole)
    save_file({"x": load_file(weights).popitem()[1]}, weights)
    with pytest.raises(ModelFilesError, match="not a LoRA adapter"):
        check_adapter(adapter)
    weights.unlink()
    with pytest.raises(ModelFilesError, match=r"adapter_model\.safetensors is missing"):
        check_adapter(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ModelFilesError, match=r"adapter_config\.json"):
        check_adapter(adapter)
    with pytest.raises(ModelFilesError, match="not a folder"):
        check_adapter(tmp_path / "nowhere")


def test_adapters_are_brought_with_their_model(tmp_path: Path) -> None:
    stack = given.config(given.toy(lora_adapters=[TOY_ADAPTER]), paths={"state": str(tmp_path)})
    outcomes = ensure_models(stack, tmp_path, lambda _: None)
    assert [(outcome.served_model_name, outcome.what) for outcome in outcomes] == [("toy", "made"), ("toy-sql", "made")]
    (engine,) = given.plan(stack, root=tmp_path).engines
    assert [outcome.folder for outcome in outcomes] == [engine.model_dir, *engine.adapter_dirs]
    assert [outcome.what for outcome in ensure_models(stack, tmp_path, lambda _: None)] == ["here", "here"]


def test_an_adapter_of_ones_own_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    odd = {"name": "odd", "source": {"path": str(tmp_path / "odd")}}
    stack = given.config(given.toy(lora_adapters=[odd]), paths={"state": str(tmp_path)})
    with pytest.raises(InputError) as error:
        ensure_models(stack, tmp_path, lambda _: None)
    assert given.wheres(error.value) == ["models[0].lora_adapters[0].source.path"]
    assert not (tmp_path / "models").exists()


def test_an_archive_that_holds_a_model_is_no_adapter(tmp_path: Path) -> None:
    make_toy_model(tmp_path / "model")
    with tarfile.open(tmp_path / "model.tar", "w") as tar:
        tar.add(tmp_path / "model", arcname=".")
    adapter = {"name": "sql", "source": {"archive": str(tmp_path / "model.tar")}}
    stack = given.config(given.toy(lora_adapters=[adapter]), paths={"state": str(tmp_path)})
    with pytest.raises(StackError, match=r"holds no adapter_config\.json"):
        ensure_models(stack, tmp_path, lambda _: None)


# At gather, before anything is touched


def test_an_adapter_of_a_larger_rank_than_the_engine_is_told_of_is_refused_with_the_number(
    write_stack: WriteStack, adapter: Path, tmp_path: Path
) -> None:
    make_toy_model(tmp_path / "model")
    model = given.toy(
        source={"path": str(tmp_path / "model")}, max_lora_rank=1,
        lora_adapters=[{"name": "sql", "source": {"path": str(adapter)}}],
    )  # fmt: skip
    path = write_stack(yaml.safe_dump({"device": "cpu", "models": [model]}))
    with pytest.raises(InputError, match="of rank 8") as error:
        gather_from(path)
    assert given.wheres(error.value) == ["models[0].max_lora_rank"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vocab_size", 999, r"vocab_size and hidden_size are \[999, 256\]"),
        ("num_hidden_layers", 5, "num_hidden_layers is 5, the weights hold 2"),
    ],
)
def test_a_model_whose_files_disagree_with_its_config_is_refused_with_file_and_key(
    write_stack: WriteStack, tmp_path: Path, key: str, value: int, said: str
) -> None:
    folder = tmp_path / "model"
    make_toy_model(folder)
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    path = write_stack(yaml.safe_dump({"device": "cpu", "models": [given.toy(source={"path": str(folder)})]}))
    with pytest.raises(InputError, match=said) as error:
        gather_from(path)
    assert given.wheres(error.value) == ["models[0].source.path"]
    assert str(folder) in str(error.value)
