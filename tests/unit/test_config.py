"""StackConfig: frozen, equal for equal files, and strict about flags that the plan sets itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.errors import InputError
from unit import given
from unit.conftest import WriteStack

ONE_WAY = "device: cpu\nmodels:\n  - served_model_name: toy\n    source: {toy: true}\n    extra_args: [--x, '1']\n"
ANOTHER = 'models: [{extra_args: ["--x", "1"], source: {toy: true}, served_model_name: "toy"}]\ndevice: "cpu" # same\n'


def test_equal_files_give_equal_objects(write_stack: WriteStack) -> None:
    first, second = load_config(write_stack(ONE_WAY)), load_config(write_stack(ANOTHER))
    assert first == second
    assert hash(first) == hash(second)


def test_files_that_differ_in_one_value_give_different_objects(write_stack: WriteStack) -> None:
    first = load_config(write_stack(ONE_WAY))
    assert load_config(write_stack(ONE_WAY.replace("'1'", "'2'"))) != first


@pytest.mark.parametrize(
    ("section", "key"),
    [("", "name"), ("", "models"), ("models", "replicas"), ("gateway", "listen"), ("paths", "state")],
)
def test_nothing_of_it_can_be_changed(section: str, key: str) -> None:
    config = given.config()
    target: Any = config.models[0] if section == "models" else getattr(config, section) if section else config
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, key, getattr(target, key))


def test_lists_of_it_cannot_grow() -> None:
    config = given.config(given.toy(extra_args=["--x"]))
    for value in (config.models, config.models[0].extra_args, config.gateway.api_keys):
        assert isinstance(value, tuple)


def every_key_set(device: str) -> StackConfig:
    quantized = given.toy(max_model_len=2048, quantization="awq", cpu_kvcache_space=1)
    return given.config(quantized, given.toy(served_model_name="b", enable_prefix_caching=False), device=device)


def planned_flags() -> list[str]:
    """Every flag that a plan can set."""
    engines = [engine for device in ("cpu", "cuda") for engine in given.plan(every_key_set(device)).engines]
    return sorted({argument for engine in engines for argument in engine.argv if argument.startswith("--")})


@pytest.mark.parametrize(
    "flag", [*planned_flags(), "-tp", "-q", "-pp", "-dp", "--api-key", "--ssl-keyfile", "--config", "--uds"]
)
def test_a_flag_that_the_stack_sets_is_refused_in_every_spelling(flag: str) -> None:
    body = flag.lstrip("-")
    underscored = flag.removesuffix(body) + body.replace("-", "_")
    for spelling in {flag, f"{flag}=1", underscored, f"{underscored}=1"}:
        with pytest.raises(ValidationError, match="is not free"):
            given.config(given.toy(extra_args=["--enforce-eager", spelling]))


@pytest.mark.parametrize(
    "argument",
    ["--por", "--por=3", "--ho", "--max-model", "--tensor_par", "--enable-pre", "--api-k", "-qawq", "-q=awq", "-tp2"],
)
def test_a_shortened_or_joined_spelling_is_refused_too(argument: str) -> None:
    """vLLM's parser takes the beginning of a flag for the flag, and a value joined to a short one."""
    with pytest.raises(ValidationError, match="is not free"):
        given.config(given.toy(extra_args=[argument]))


@pytest.mark.parametrize(
    "argument",
    ["--enforce-eager", "--max-num-partial-prefills=2", "--model-impl", "--hf-overrides.a=1", "-O3", "8000"],
)
def test_flags_that_only_resemble_them_are_free(argument: str) -> None:
    assert given.config(given.toy(extra_args=[argument])).models[0].extra_args == (argument,)


@pytest.mark.parametrize("argument", ["a\0", "\x1b[31m"])
def test_control_characters_are_refused(argument: str) -> None:
    with pytest.raises(ValidationError, match="control characters"):
        given.config(given.toy(extra_args=[argument]))
    with pytest.raises(ValidationError, match="cannot be shown"):
        given.config(given.toy(source={"path": f"models/{argument}"}))


def test_the_refusal_names_the_key_to_use_instead(write_stack: WriteStack) -> None:
    with pytest.raises(InputError, match="set the key max_model_len"):
        load_config(write_stack(ONE_WAY.replace("--x", "--max_model_len")))


@pytest.mark.parametrize(
    "sections",
    [
        {"gateway": {"https_port": 9090}},
        {"gateway": {"https_port": 9093}},
        {"observability": {"prometheus_port": 8443}},
        {"observability": {"alertmanager_port": 9090}},
        {"observability": {"grafana": {"port": 9093}}},
        {"gateway": {"https_port": 3000}},
    ],
)
def test_a_port_that_another_key_has_by_default_is_refused(sections: dict[str, Any], write_stack: WriteStack) -> None:
    lines = "".join(f"{section}: {keys}\n" for section, keys in sections.items())
    with pytest.raises(InputError, match="is also"):
        load_config(write_stack(ONE_WAY + lines))


@pytest.mark.parametrize(
    "url", ["logs.example.org", "ftp://a/b", "http://me:secret@a/b", "http://a/'", "http://a/$b", "http://a:65536/"]
)
def test_a_collector_of_logs_that_cannot_be_is_refused(url: str, write_stack: WriteStack) -> None:
    with pytest.raises(InputError, match=r"observability\.log_shipping\.url"):
        load_config(write_stack(ONE_WAY + f"observability: {{log_shipping: {{url: {json.dumps(url)}}}}}\n"))


def test_a_grafana_that_is_turned_off_has_no_port(write_stack: WriteStack) -> None:
    lines = "gateway: {https_port: 3000}\nobservability: {grafana: {enabled: false}}\n"
    config = load_config(write_stack(ONE_WAY + lines))
    assert config.images_unwanted == {"fluent_bit", "grafana"}
    assert given.config().images_unwanted == {"fluent_bit"}


@pytest.mark.parametrize(
    "name",
    ["a", "0", "a" * 63, "vllm-onprem-2"],
)
def test_names_that_dns_takes_are_taken(name: str) -> None:
    assert given.config(name=name).name == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a" * 64, "a.b", "a_b", "a\n", "ä"])
def test_names_that_dns_does_not_take_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        given.config(name=name)


@pytest.mark.parametrize("value", ["30d", "1h", "99999y", "2w"])
def test_retention_is_a_number_and_a_unit(value: str) -> None:
    assert given.config(observability={"retention": value}).observability.retention == value


@pytest.mark.parametrize("value", ["30", "0d", "d", "30 d", "30d\n", "1.5d", "30s"])
def test_any_other_retention_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        given.config(observability={"retention": value})


def test_every_problem_of_a_file_is_told_at_once(write_stack: WriteStack) -> None:
    content = ONE_WAY + "nme: x\ngateway: {https_port: 0, api_keys: [a, a]}\npaths: {state: a/../b}\n"
    with pytest.raises(InputError) as error:
        load_config(write_stack(content))
    assert sorted(given.wheres(error.value)) == ["gateway.api_keys[1]", "gateway.https_port", "nme", "paths.state"]
    assert error.value.exit_code == 2


@pytest.mark.parametrize("mirror", ["registry.example.org", "registry:5000/mirror", "localhost/mirror", "10.0.0.1"])
def test_a_mirror_is_a_registry(mirror: str) -> None:
    assert given.config(images={"mirror": mirror}).images.mirror == mirror


@pytest.mark.parametrize("mirror", ["registry", "mirror/images", "https://registry.example.org", "user@host:1", ""])
def test_a_mirror_that_docker_would_take_for_something_else_is_refused(mirror: str) -> None:
    with pytest.raises(ValidationError, match="registry"):
        given.config(images={"mirror": mirror})


@pytest.mark.parametrize(
    ("objective", "where", "what"),
    [
        ("fast", "models[0].objective", '"fast" is not allowed; allowed: throughput, latency'),
        ({"ttft": 2}, "models[0].objective.ttft", "unknown key; did you mean 'ttft_p99'?"),
        ({"ttft_p99": "2"}, "models[0].objective.ttft_p99", '"2" is not a number'),
        ({"concurrency": 4}, "models[0].objective", "give ttft_p99, tokens_per_second_per_user, or both"),
    ],
)
def test_a_wrong_objective_is_told_once_by_its_own_key(
    write_stack: WriteStack, objective: object, where: str, what: str
) -> None:
    model = {"served_model_name": "m", "source": {"hub": "a/b"}, "objective": objective}
    with pytest.raises(InputError) as error:
        load_config(write_stack(yaml.safe_dump({"models": [model]})))
    assert [(problem.where, problem.what) for problem in error.value.problems] == [(where, what)]
