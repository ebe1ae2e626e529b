"""What the plan chooses, why, and what it says when nothing fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stack.config.fields import AUTO
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.errors import InputError
from stack.hardware import Gpu, Host
from stack.sizing.advice import changes, shortage
from stack.sizing.candidates import SIZES, candidate
from stack.sizing.choice import Choice, choose
from stack.sizing.explain import bar, notes, sized_text
from stack.sizing.files import Known, Unknown, auto_keys, needs_of, running_gpus
from stack.sizing.report import sized_dict
from stack.sizing.resolve import Resolver, Sized
from stack.sizing.roofline import decode
from stack.sizing.wishes import WANTED_CONTEXT, Objective
from stacks import EIGHT_GPUS, ROOT
from unit import given
from unit.sizing.fixtures import card, config, known, wish

ALL_AUTO = dict.fromkeys(
    ("replicas", "tensor_parallel_size", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
     "gpu_memory_utilization"), "auto",
)  # fmt: skip


def chosen(name: str, kind: str, gpus: int = 8, **keys: Any) -> Choice:
    model = known(name)
    found = choose(model.shape, model.weights, card(kind), gpus, wish(**keys))
    assert found is not None
    return found


def way(choice: Choice) -> tuple[int, int]:
    """(replicas, tensor parallel size) that was chosen."""
    return choice.chosen.replicas, choice.chosen.size


def test_what_fits_on_one_gpu_gets_a_replica_on_each() -> None:
    choice = chosen("llama-3-8b-awq", "a100-80-sxm")
    assert way(choice) == (8, 1)
    assert [(each.replicas, each.size) for each in choice.considered] == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert "fits on one GPU" in choice.reasons[0]


def test_the_articles_shape_stands_beside_what_its_gpus_could_do() -> None:
    """1 x TP8 is kept where stack.yaml says so; 8 x TP1 gives several times as many tokens a second."""
    choice = chosen("llama-3-8b-awq", "a100-80-sxm", tensor_parallel_size=8, replicas=1, max_model_len=8192)
    assert way(choice) == (1, 8)
    beside = {each.size: each for each in choice.considered}
    assert beside[1].replicas == 8
    assert beside[1].busy > 4 * beside[8].busy
    assert "8 x TP1 on the same GPUs could give" in choice.reasons[1]


def test_tensor_parallel_comes_in_where_the_model_does_not_fit() -> None:
    assert way(chosen("llama-3.1-70b", "a100-80-sxm")) == (4, 2)
    tight = chosen("llama-3.1-70b", "a100-80-sxm", gpu_memory_utilization=0.88)
    assert way(tight) == (2, 4)
    assert "too few" in tight.reasons[0]


def test_weights_that_crowd_the_memory_leave_no_context_so_more_gpus_serve_one() -> None:
    """70B on 0.88 of two cards starts with a context that is cut; four cards hold the model's own."""
    tight = chosen("llama-3.1-70b", "a100-80-sxm", gpu_memory_utilization=0.88)
    by_size = {each.size: each for each in tight.considered}
    assert by_size[2].fits
    assert by_size[2].memory.setting.max_model_len < WANTED_CONTEXT
    assert by_size[4].memory.setting.max_model_len == 131072


def test_weights_that_crowd_the_memory_leave_no_room_so_more_gpus_serve_one() -> None:
    asked = Objective("slo", concurrency=128, tokens_per_second_per_user=1)
    by_size = {each.size: each for each in chosen("llama-3.1-70b", "a100-80-sxm", objective=asked).considered}
    assert by_size[2].fits
    assert by_size[2].room < by_size[2].needed
    assert way(chosen("llama-3.1-70b", "a100-80-sxm", objective=asked)) == (2, 4)


def test_latency_takes_more_gpus_as_long_as_they_pay() -> None:
    small, large = (chosen(name, "a100-80-sxm", objective=Objective("latency")) for name in ("qwen3-0.6b", "qwen3-32b"))
    assert large.chosen.size == 8
    # an all-reduce takes longer than what it saves on so small a model
    assert small.chosen.size == 1


def test_a_promise_of_speed_bounds_sequences_and_chunks() -> None:
    goal = Objective("slo", concurrency=64, tokens_per_second_per_user=40)
    choice = chosen("llama-3.1-8b", "a100-80-sxm", objective=goal, max_num_batched_tokens=None, max_model_len=8192)
    flags = choice.chosen.memory.setting
    model = known("llama-3.1-8b")
    assert not choice.warnings
    speed = decode(
        model.shape, model.weights, card("a100-80-sxm"), choice.chosen.size, flags.max_num_seqs, goal.request
    )
    assert speed.per_user >= 40
    assert flags.max_num_batched_tokens <= 2048


def test_a_promise_that_cannot_be_kept_is_said_in_numbers() -> None:
    goal = Objective("slo", concurrency=64, tokens_per_second_per_user=5000)
    choice = chosen("llama-3.1-70b", "a100-80-sxm", objective=goal)
    assert "the goal is not met" in choice.warnings[0]
    assert "5000 are asked" in choice.warnings[0]


def test_a_first_token_in_time_needs_fewer_at_once() -> None:
    slow = Objective("slo", concurrency=64, ttft_p99=0.001)
    assert "first token" in chosen("llama-3.1-8b", "a100-80-sxm", objective=slow).warnings[0]
    easy = Objective("slo", concurrency=1, ttft_p99=5.0)
    assert not chosen("llama-3.1-8b", "a100-80-sxm", objective=easy).warnings


@pytest.mark.parametrize(
    ("name", "kind", "gpus", "keys"),
    [
        ("llama-3.1-70b", "a100-80-sxm", 1, {}),
        ("llama-3.1-405b", "h100-sxm", 8, {}),
        ("qwen3-32b", "l4", 2, {}),
        ("qwen3-32b", "h100-sxm", 1, {"tensor_parallel_size": 1, "replicas": 1, "max_model_len": 40960}),
    ],
)
def test_what_cannot_fit_is_refused_with_changes_that_do(name: str, kind: str, gpus: int, keys: dict[str, Any]) -> None:
    model, asked = known(name), wish(**keys)
    assert choose(model.shape, model.weights, card(kind), gpus, asked) is None
    assert "does not fit" in shortage(model.shape, model.weights, card(kind), gpus, asked)
    found = list(changes(model.shape, model.weights, card(kind), gpus, asked))
    assert found
    for change in found:
        key, _, value = change.partition(": ")
        number = value.split(" ")[0]
        if key == "tensor_parallel_size":
            assert int(number) in SIZES
            assert candidate(model.shape, model.weights, card(kind), int(number), 1, asked).fits
        elif key == "max_model_len":
            fits = candidate(model.shape, model.weights, card(kind), 1, 1, replace(asked, max_model_len=int(number)))
            assert fits.fits
        else:
            assert "version of the model" in change or key == "kv_cache_dtype"


def test_an_fp8_cache_is_advised_only_where_the_card_can() -> None:
    model = known("llama-3.1-8b")
    asked = wish(tensor_parallel_size=1, replicas=1, max_model_len=131072, gpu_memory_utilization=0.45)
    for kind, can in (("h100-sxm", True), ("a100-80-sxm", False)):
        found = " ".join(changes(model.shape, model.weights, card(kind), 1, asked))
        assert ("kv_cache_dtype: fp8" in found) == can


# --- stack.yaml -> numbers ---


def stack(*models: dict[str, Any], device: str = "cuda") -> StackConfig:
    return given.config(*models, device=device)


def model(name: str, **keys: Any) -> dict[str, Any]:
    return {"served_model_name": name, "source": {"hub": f"org/{name}"}, **keys}


def a_host(count: int = 8, kind: str = "NVIDIA A100-SXM4-80GB", memory_mib: int = 81920) -> Host:
    return Host(gpus=tuple(Gpu(uuid=f"GPU-{n:08x}", model=kind, memory_mib=memory_mib) for n in range(count)))


def resolved(*models: dict[str, Any], host: Host | None = None, **keys: Any) -> tuple[StackConfig, tuple[Sized, ...]]:
    files = {each["served_model_name"]: known(each["served_model_name"]) for each in models}
    return Resolver(stack(*models), files).host(host or a_host(), **keys)


def test_every_auto_becomes_a_number() -> None:
    found, (sized,) = resolved(model("llama-3-8b-awq", **ALL_AUTO))
    (plain,) = found.models
    assert auto_keys(plain) == ()
    assert set(sized.auto) == set(ALL_AUTO)
    assert (plain.replicas, plain.tensor_parallel_size, plain.max_model_len) == (8, 1, 8192)
    assert plain.max_num_seqs >= 1
    assert plain.gpu_memory_utilization == 0.92
    plan = given.plan(found, a_host())
    assert len(plan.engines) == 8
    assert "-1" not in plan.engines[0].argv


def test_what_is_said_is_kept() -> None:
    found, _ = resolved(model("llama-3-8b-awq", replicas="auto", tensor_parallel_size=2, max_num_seqs=17))
    assert (found.models[0].replicas, found.models[0].tensor_parallel_size, found.models[0].max_num_seqs) == (4, 2, 17)


def test_models_share_a_host_and_what_is_said_comes_first() -> None:
    found, _ = resolved(
        model("llama-3.1-70b", **ALL_AUTO), model("llama-3-8b-awq", **ALL_AUTO), model("qwen3-8b", replicas=2)
    )
    used = [each.replicas * each.tensor_parallel_size for each in found.models]
    assert used[2] == 2
    assert sum(used) <= 8
    assert used[0] == 4
    assert used[1] == 2
    given.plan(found, a_host())


def test_cordoned_gpus_are_not_counted() -> None:
    out = frozenset({"GPU-00000000", "GPU-00000001"})
    found, _ = resolved(model("llama-3-8b-awq", **ALL_AUTO), cordoned=out)
    assert found.models[0].replicas == 6


def problem(*models: dict[str, Any], files: dict[str, Known | Unknown], host: Host | None = None) -> str:
    with pytest.raises(InputError) as error:
        Resolver(stack(*models), files).host(host or a_host())
    return str(error.value)


def test_auto_needs_the_files_and_says_how_to_get_them() -> None:
    text = problem(model("m", replicas="auto"), files={})
    assert "models[0].replicas: auto: its files are not here yet: `make fetch` brings them" in text
    assert "or set replicas yourself" in text


def test_an_unknown_model_is_left_to_the_person() -> None:
    text = problem(
        model("m", max_model_len="auto"), files={"m": Unknown("N is not an architecture that the plan knows")}
    )
    assert text == (
        "stack.yaml: models[0].max_model_len: auto: N is not an architecture that the plan knows;"
        " or set max_model_len yourself"
    )


def test_an_unknown_card_is_left_to_the_person() -> None:
    host = a_host(kind="NVIDIA Future", memory_mib=1_000_000)
    text = problem(model("m", replicas="auto"), files={"m": known("llama-3-8b")}, host=host)
    assert "'NVIDIA Future' is not in the catalogue" in text


def test_cards_of_several_kinds_are_left_to_the_person() -> None:
    mixed = Host(gpus=(*a_host(1).gpus, Gpu(uuid="GPU-0000000f", model="NVIDIA L4", memory_mib=23034)))
    assert "GPUs of several kinds" in problem(model("m", replicas="auto"), files={"m": known("llama-3-8b")}, host=mixed)


def test_auto_that_cannot_fit_names_the_key_and_the_changes() -> None:
    text = problem(model("m", tensor_parallel_size="auto"), files={"m": known("llama-3.1-70b")}, host=a_host(1))
    assert "models[0].tensor_parallel_size: auto: does not fit 1 x a100-80-sxm" in text
    assert "it would with tensor_parallel_size: 4 (4 GPUs on one host)" in text


@pytest.mark.parametrize("files", [{}, {"m": Unknown("no")}])
def test_without_auto_nothing_of_this_is_needed(files: dict[str, Known | Unknown]) -> None:
    config_, (sized,) = Resolver(stack(model("m", replicas=8)), files).host(a_host(kind="NVIDIA Future"))
    assert config_ == stack(model("m", replicas=8))
    assert sized.choice is None
    assert sized_text(sized, []).startswith("m: not planned: ")


def test_numbers_that_do_not_seem_to_fit_are_said_and_not_refused() -> None:
    found, (sized,) = resolved(model("llama-3.1-70b"))
    assert found.models[0].tensor_parallel_size == 1
    assert "does not fit" in sized_text(sized, [])


def test_a_plan_with_an_open_number_is_not_made() -> None:
    with pytest.raises(InputError, match="replicas: auto was not resolved"):
        given.plan(stack(model("m", replicas="auto")), a_host())


def test_the_cpu_takes_the_cache_it_is_given() -> None:
    keys = {"max_model_len": "auto", "max_num_seqs": "auto", "replicas": "auto", "tensor_parallel_size": "auto"}
    one = stack(model("llama-3.1-8b", cpu_kvcache_space=2, **keys), device="cpu")
    found, (sized,) = Resolver(one, {"llama-3.1-8b": known("llama-3.1-8b")}).host(Host())
    plain = found.models[0]
    assert (plain.replicas, plain.tensor_parallel_size) == (1, 1)
    assert plain.max_model_len == 15360  # 2 GiB / 128 KiB, less the block that is kept back, in steps of 1024
    assert plain.max_num_seqs == 12
    assert sized.choice is not None


@pytest.mark.parametrize("key", ["replicas", "tensor_parallel_size", "max_num_seqs", "max_model_len"])
@pytest.mark.parametrize("value", ["Auto", "automatic", -1, 0])
def test_only_the_word_is_auto(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        stack(model("m", **{key: value}))


def test_an_objective_needs_a_goal() -> None:
    with pytest.raises(ValueError, match="give ttft_p99"):
        stack(model("m", objective={"concurrency": 4}))


def test_what_is_found_is_plain_data_for_machines() -> None:
    _, (sized,) = resolved(model("llama-3-8b-awq", **ALL_AUTO))
    found = json.loads(json.dumps(sized_dict(sized)))
    assert found["chosen"]["replicas"] == 8
    assert [each["tensor_parallel_size"] for each in found["considered"]] == [1, 2, 4, 8]
    assert found["chosen"]["memory"]["kv_cache"] > 0
    assert found["model"]["weights_estimated"]


def test_a_bar_is_as_long_as_the_memory_and_plain_without_a_terminal() -> None:
    line, means = bar(chosen("llama-3.1-70b", "a100-80-sxm").chosen.memory)
    assert len(line) == 62
    assert line.isascii()
    assert line.index("W") < line.index("K") < line.index(".")
    assert "KV cache" in means


def test_what_the_architecture_cannot_do_is_explained() -> None:
    _, (sized,) = resolved(model("qwen3-235b-fp8", **ALL_AUTO))
    said = " ".join(notes(sized))
    assert "has no fp8 tensor cores" in said
    assert "e4m3 needs compute capability 8.9" in said


def test_a_cache_that_the_card_cannot_read_is_said_to_be_refused() -> None:
    _, (old,) = resolved(model("llama-3-8b", kv_cache_dtype="fp8"))
    _, (new,) = resolved(model("llama-3-8b", kv_cache_dtype="fp8"), host=a_host(8, "NVIDIA L4", 23034))
    assert "kv_cache_dtype fp8 needs compute capability 8.9, a100-80-sxm has 8.0" in " ".join(notes(old))
    assert "kv_cache_dtype" not in " ".join(notes(new))


def test_broken_files_matter_only_to_auto(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    plain, auto = stack(model("m")), stack(model("m", replicas="auto"))
    assert isinstance(needs_of(plain, lambda _: tmp_path, "stack.yaml")["m"], Unknown)
    with pytest.raises(InputError, match=r"models\[0\]\.source: .*config\.json: not JSON"):
        needs_of(auto, lambda _: tmp_path, "stack.yaml")
    assert needs_of(auto, lambda _: tmp_path / "nowhere", "stack.yaml") == {}


def test_what_runs_on_this_host_is_read_from_the_applied_plan(tmp_path: Path) -> None:
    assert running_gpus(tmp_path, "node") == {}
    plan = given.plan(stack(model("m", replicas=2)), a_host().model_copy(update={"name": "node"}))
    (tmp_path / "plan.json").write_text(json.dumps(plan.as_dict()))
    assert running_gpus(tmp_path, "node") == {"engine-m-0": ("GPU-00000000",), "engine-m-1": ("GPU-00000001",)}
    assert running_gpus(tmp_path, "other") == {}


def test_auto_is_no_number_that_a_person_can_write() -> None:
    assert AUTO < 0
    assert config("llama-3-8b")["num_attention_heads"] > AUTO


def test_what_is_asked_for_beyond_the_host_is_counted() -> None:
    text = problem(
        model("m", replicas="auto", tensor_parallel_size=4), files={"m": known("llama-3-8b")}, host=a_host(2)
    )
    assert "4 GPUs are needed, 2 are free" in text


def test_replicas_that_are_said_leave_so_many_gpus_for_each() -> None:
    found, _ = resolved(model("llama-3.1-70b", replicas=2, tensor_parallel_size="auto", max_model_len=8192))
    assert found.models[0].tensor_parallel_size in {2, 4}
    text = problem(
        model("m", replicas=8, tensor_parallel_size="auto", max_model_len=8192), files={"m": known("llama-3.1-70b")}
    )
    assert "does not fit 1 x a100-80-sxm" in text


def test_flags_that_take_memory_of_their_own_are_named() -> None:
    _, (sized,) = resolved(model("llama-3-8b", extra_args=["--cpu-offload-gb", "4"]))
    assert "not counted: memory that extra_args may take (--cpu-offload-gb 4)" in notes(sized)


def test_the_articles_own_example_shows_both_shapes_once_its_files_are_here() -> None:
    """compose/examples: one engine on eight A100 80 GB, as the article ran it."""
    article = load_config(ROOT / "compose/examples/a100x8-llama3-8b-awq-tp8.yaml")
    files = {"llama-3-8b-instruct": known("llama-3-8b-awq")}
    _, (sized,) = Resolver(article, files).host(EIGHT_GPUS)
    said = sized_text(sized, [])
    assert "llama-3-8b-instruct: 1 x TP8 on a100-80-sxm" in said
    assert "     8 x TP1" in said
    assert "  >  1 x TP8" in said


def test_another_host_moves_nothing_on_the_first() -> None:
    models = [model("llama-3-8b-awq", **ALL_AUTO), model("qwen3-8b", replicas=2)]
    files = {each["served_model_name"]: known(each["served_model_name"]) for each in models}
    alone = Resolver(stack(*models), files).host(a_host())
    beside = Resolver(stack(*models), files)
    beside.host(a_host(4, "NVIDIA L4", 23034))
    assert beside.host(a_host()) == alone
