#!/usr/bin/env python3
"""Would another vLLM serve this stack? Its flags, their defaults, its metrics and variables, against the pinned one's.

The running stack is not touched. Exit code 1 when the stack would break.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from stack import console, inputs
from stack.day2.upgrade import Difference, differences, metrics_read
from stack.day2.vllm_versions import facts_of_image, facts_of_version, facts_of_wheel, reference_of
from stack.docker_host import connect
from stack.errors import InputError
from stack.images.carry import present
from stack.images.pins import load_pins


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/upgrade_check.py stack.yaml 0.33.0")
    inputs.add_arguments(parser)
    parser.add_argument("version", help="the vLLM to look at, such as 0.33.0")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    found, client = inputs.gather(arguments), connect()
    reference_of(arguments.version, found.config, inputs.ROOT)  # a wrong version is told at once
    engines = [engine for plan in found.plans() for engine in (*plan.engines, *plan.cordoned)]
    argvs = {engine.argv: engine.served_model_name for engine in engines}
    variables = {name for engine in engines for name in engine.environment if name.startswith("VLLM_")}
    pinned = load_pins(inputs.ROOT).vllm_version
    image = found.images["vllm"]
    if present(client, image):
        old = facts_of_image(image, list(argvs), client)
    elif found.config.device == "cpu":
        old = facts_of_wheel(pinned, list(argvs))
    else:
        raise InputError(image, "the pinned image, which is to be compared, is not here: `make images`")
    new = facts_of_version(arguments.version, found.config, list(argvs), inputs.ROOT, client)
    result = differences(old, new, argvs, variables, metrics_read(inputs.ROOT))
    breaks = [one for one in result if one.breaks]
    if arguments.json:
        differing = [asdict(one) for one in result]
        console.print_json({"pinned": old.version, "asked": new.version, "breaks": bool(breaks), "differs": differing})
    else:
        rows = [[_mark(one), one.kind, one.name, one.what] for one in result]
        print(console.table(["", "what", "name", "change"], rows) if rows else "No flag, metric or variable differs.")
        verdict = f"it would break in {len(breaks)} place(s)" if breaks else "nothing of it breaks"
        print(f"vLLM {old.version} -> {new.version}, {len(argvs)} command line(s) of this stack: {verdict}.")
        print("Seen: flags, defaults of flags, names. Not seen: what a default that says None becomes, speed, answers.")
    return 1 if breaks else 0


def _mark(one: Difference) -> str:
    return "BREAKS" if one.breaks else "yours" if one.concerns else ""


if __name__ == "__main__":
    console.run(main)
