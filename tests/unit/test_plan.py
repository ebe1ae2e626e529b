"""The plan: what runs where, with which flags. Pure, and the same for the same input."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stack.config.schema import StackConfig
from stack.errors import InputError
from stack.hardware import Host
from stack.models.config_json import ModelFacts
from stack.plan.make import make_plan
from stack.plan.types import Engine, Plan
from stacks import EIGHT_GPUS, ROOT, plans
from unit import given

NOWHERE = Path("/nowhere/that/exists")
# of hosts for themselves: test_fleet_plan.py is about the others
EVERY_PLAN = {name: plan for name, plan in plans(given.IMAGES, images_built=False) if plan.fleet is None}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def only_engine(device: str = "cuda", **keys: Any) -> Engine:
    (engine,) = given.plan(given.config(given.toy(**keys), device=device)).engines
    return engine


def value_of(engine: Engine, flag: str) -> str | None:
    """The word after a flag that is given once, None when it is absent."""
    assert engine.argv.count(flag) <= 1
    return engine.argv[engine.argv.index(flag) + 1] if flag in engine.argv else None


@pytest.mark.parametrize(
    ("key", "value", "flag", "word"),
    [
        ("served_model_name", "org/m-1.5", "--served-model-name", "org/m-1.5"),
        ("dtype", "bfloat16", "--dtype", "bfloat16"),
        ("max_num_seqs", 17, "--max-num-seqs", "17"),
        ("max_model_len", 4096, "--max-model-len", "4096"),
        ("max_model_len", None, "--max-model-len", None),
        ("tensor_parallel_size", 4, "--tensor-parallel-size", "4"),
        ("gpu_memory_utilization", 0.85, "--gpu-memory-utilization", "0.85"),
        ("gpu_memory_utilization", 1.0, "--gpu-memory-utilization", "1"),
        ("quantization", "awq_marlin", "--quantization", "awq_marlin"),
        ("quantization", None, "--quantization", None),
        ("shutdown_timeout", 33, "--shutdown-timeout", "33"),
    ],
)
def test_a_key_becomes_the_flag_of_its_name(key: str, value: object, flag: str, word: str | None) -> None:
    keys: dict[str, Any] = {key: value}
    assert value_of(only_engine(**keys), flag) == word


def test_prefix_caching_is_said_either_way() -> None:
    on, off = only_engine(enable_prefix_caching=True), only_engine(enable_prefix_caching=False)
    assert "--enable-prefix-caching" in on.argv
    assert "--no-enable-prefix-caching" not in on.argv
    assert "--no-enable-prefix-caching" in off.argv
    assert "--enable-prefix-caching" not in off.argv


def test_a_cpu_engine_has_no_share_of_gpu_memory_but_a_cache_size() -> None:
    cpu, cuda = only_engine("cpu", cpu_kvcache_space=3), only_engine("cuda")
    assert value_of(cpu, "--gpu-memory-utilization") is None
    assert cpu.environment["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert "VLLM_CPU_KVCACHE_SPACE" not in cuda.environment
    assert cpu.gpus == ()


def test_extra_args_come_last_and_word_for_word() -> None:
    extra = ["--hf-overrides", '{"a": "$HOME b"}', "--enforce-eager"]
    assert list(only_engine(extra_args=extra).argv[-3:]) == extra


def test_engines_keep_connections_longer_than_nginx_does() -> None:
    assert int(only_engine().environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > 75


@pytest.mark.parametrize(
    "models",
    [
        [(1, 1)],
        [(8, 1)],
        [(1, 8)],
        [(2, 2), (1, 4)],
        [(1, 4), (3, 1)],
        [(2, 1), (1, 2), (1, 1)],
    ],
)
def test_gpus_are_given_in_order_and_none_twice(models: list[tuple[int, int]]) -> None:
    config = given.config(
        *(
            given.toy(served_model_name=f"m{n}", replicas=replicas, tensor_parallel_size=size)
            for n, (replicas, size) in enumerate(models)
        ),
        device="cuda",
    )
    made = given.plan(config)
    taken = [uuid for engine in made.engines for uuid in engine.gpus]
    assert taken + list(made.gpus_unused) == [gpu.uuid for gpu in EIGHT_GPUS.gpus]
    assert [len(engine.gpus) for engine in made.engines] == [size for replicas, size in models for _ in range(replicas)]


def test_one_gpu_too_few_is_refused_and_the_right_number_is_enough() -> None:
    config = given.config(given.toy(replicas=3, tensor_parallel_size=2), device="cuda")
    assert len(given.plan(config, Host(gpus=given.gpus(6))).engines) == 3
    with pytest.raises(InputError) as error:
        given.plan(config, Host(gpus=given.gpus(5)))
    assert given.wheres(error.value) == ["models"]


@pytest.mark.parametrize(("size", "heads", "fits"), [(2, 32, True), (3, 32, False), (4, 6, False), (1, 7, True)])
def test_tensor_parallel_size_has_to_divide_the_heads(size: int, heads: int, fits: bool) -> None:
    config = given.config(given.toy(tensor_parallel_size=size), device="cuda")
    facts = {"toy": ModelFacts(attention_heads=heads, architecture=None)}
    if fits:
        assert make_plan(config, EIGHT_GPUS, given.IMAGES, ROOT, facts).engines
        return
    with pytest.raises(InputError) as error:
        make_plan(config, EIGHT_GPUS, given.IMAGES, ROOT, facts)
    assert given.wheres(error.value) == ["models[0].tensor_parallel_size"]


@pytest.mark.parametrize("seconds", [1, 9, 10, 60, 599, 3600])
def test_an_engine_may_finish_its_shutdown_before_docker_kills_it(seconds: int) -> None:
    engine = only_engine(shutdown_timeout=seconds)
    told = value_of(engine, "--shutdown-timeout")
    assert told is not None
    assert int(told) < engine.stop_grace


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_every_engine_is_in_exactly_one_pool_and_is_scraped(name: str) -> None:
    made = EVERY_PLAN[name]
    names = [engine.name for engine in made.engines]
    assert len(set(names)) == len(names)
    assert Counter(engine for pool in made.pools for engine in pool.engines) == Counter(names)
    scraped = [target for target in made.targets if target.job == "vllm"]
    assert Counter(target.address.split(":")[0] for target in scraped) == Counter(names)
    by_name = {engine.name: engine for engine in made.engines}
    for pool in made.pools:
        assert {by_name[engine].served_model_name for engine in pool.engines} == {pool.served_model_name}


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a-1", "A"],
        ["a", "a-2", "A"],
        ["a", "A", "a-1", "a-2", "a.1"],
        ["x" * 60, "x" * 50, "x" * 40],
        ["org/m.1", "org/m-1", "org/m_1"],
    ],
)
def test_models_whose_names_look_alike_get_pools_of_their_own(names: list[str]) -> None:
    made = given.plan(given.config(*(given.toy(served_model_name=name, replicas=2) for name in names)))
    assert len({pool.name for pool in made.pools}) == len(names)
    assert len({engine.name for engine in made.engines}) == 2 * len(names)
    # a container's name is a DNS label
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", engine.name) for engine in made.engines)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_every_engine_has_its_own_cache_folder(name: str) -> None:
    folders = [engine.cache_dir for engine in EVERY_PLAN[name].engines]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_only_nginx_is_published_beyond_loopback(name: str) -> None:
    published = EVERY_PLAN[name].published
    assert {port.service for port in published} == {
        "nginx",
        "prometheus",
        "alertmanager",
        *(EVERY_PLAN[name].images.keys() & {"grafana"}),
    }
    assert {port.service for port in published if port.address != "127.0.0.1"} <= {"nginx"}
    assert len({port.port for port in published}) == len(published)


def test_the_gateway_listens_where_it_is_told() -> None:
    made = given.plan(given.config(gateway={"listen": "10.0.0.5", "https_port": 443}))
    nginx = next(port for port in made.published if port.service == "nginx")
    assert (nginx.address, nginx.port) == ("10.0.0.5", 443)


def test_every_part_has_a_scrape_target_with_its_host() -> None:
    made = given.plan(given.config(), Host(name="node-7"))
    assert {target.job for target in made.targets} == {
        "alertmanager",
        "blackbox",
        "grafana",
        "haproxy",
        "nginx",
        "node",
        "probe_gateway",
        "probe_replica",
        "prometheus",
        "vllm",
    }
    assert {target.labels["host"] for target in made.targets} == {"node-7"}


def test_grafana_runs_unless_it_is_turned_off_or_there_is_no_image_of_it() -> None:
    off = given.plan(given.config(observability={"grafana": {"enabled": False}}))
    images = {role: image for role, image in given.IMAGES.items() if role != "grafana"}
    without = make_plan(given.config(), Host(), images, NOWHERE)
    for made, left_out in ((off, ()), (without, ("grafana",))):
        assert "grafana" not in made.images
        assert "grafana" not in {port.service for port in made.published}
        assert "grafana" not in {target.job for target in made.targets}
        assert made.left_out == left_out
    runs = given.plan(given.config(observability={"grafana": {"port": 13000}}))
    assert runs.left_out == ()
    (port,) = (port for port in runs.published if port.service == "grafana")
    assert (port.address, port.port, port.key) == ("127.0.0.1", 13000, "observability.grafana.port")


def paths_of(made: Plan) -> list[str]:
    return [made.state_dir, *(path for engine in made.engines for path in (engine.model_dir, engine.cache_dir))]


@pytest.mark.parametrize("state", [".state", "deep/er", "/var/lib/vllm"])
@pytest.mark.parametrize(
    "source",
    [{"toy": True}, {"path": "models/x"}, {"path": "/srv/x"}, {"hub": "o/m"}, {"hub": "o/m", "revision": COMMIT}],
)
def test_every_path_is_absolute(state: str, source: dict[str, object]) -> None:
    made = given.plan(given.config(given.toy(source=source), paths={"state": state}), root=NOWHERE)
    assert all(path.startswith("/") for path in paths_of(made))


def test_two_revisions_of_one_model_never_share_a_folder() -> None:
    folders = {
        only_engine(source={"hub": "o/m", "revision": revision}).model_dir for revision in (COMMIT, COMMIT[::-1])
    }
    folders |= {only_engine(source={"hub": hub}).model_dir for hub in ("o/m", "o/n")}
    assert len(folders) == 4


def test_two_stacks_share_models_but_nothing_else() -> None:
    one, two = (given.plan(given.config(name=name)) for name in ("one", "two"))
    assert set(paths_of(one)) & set(paths_of(two)) == {one.engines[0].model_dir}


def test_the_same_input_gives_the_same_plan_and_nothing_is_touched() -> None:
    config = given.config(given.toy(replicas=2), device="cuda", paths={"state": "state"})
    copy = StackConfig.model_validate(config.model_dump())
    first, second = (given.plan(config, root=NOWHERE) for _ in range(2))
    assert first == second == given.plan(copy, root=NOWHERE)
    assert config == copy
    assert not NOWHERE.exists()


def test_shared_memory_grows_with_the_gpus_of_an_engine() -> None:
    assert only_engine(tensor_parallel_size=4).shm_mib > only_engine(tensor_parallel_size=2).shm_mib
