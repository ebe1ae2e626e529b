#!/usr/bin/env python3
"""Prove that a stack serves: every part, every replica asked directly, the gateway, and the metrics.

With --url only what a client sees is tried, from anywhere.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from stack import console, inputs
from stack.adjust import applied_plan
from stack.checks import Result, run_checks
from stack.config.load import load_config
from stack.docker_host import connect
from stack.errors import InputError
from stack.gateway_client import GatewayClient
from stack.lifecycle import verify
from stack.smoke import gateway_checks


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: scripts/smoke.py stack.yaml; scripts/smoke.py stack.yaml --url https://llm.example.org"
        " --key-file key",
    )
    inputs.add_arguments(parser)
    parser.add_argument("--url", help="a gateway to try as a client, instead of the stack on this box")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="file with the API key for --url")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificate to trust for --url")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    results = _elsewhere(arguments) if arguments.url else _here(arguments)
    failed = [result for result in results if result.failed]
    if arguments.json:
        console.print_json({"passed": not failed, "checks": [asdict(result) for result in results]})
    else:
        colours = {"passed": "green", "failed": "red", "skipped": "yellow"}
        rows = [[result.name, f"{result.seconds:.2f}", result.status, result.detail] for result in results]
        text = console.table(["check", "seconds", "result", "detail"], rows)
        for status, colour in colours.items():
            text = text.replace(f"  {status}", f"  {console.coloured(status, colour)}")
        print(text)
        for result in failed:
            print(f"{result.name}: {result.detail}\n  next: {result.look}")
        print(f"{len(results) - len(failed)} of {len(results)} checks passed" if failed else "The stack serves.")
    return 1 if failed else 0


def _here(arguments: argparse.Namespace) -> list[Result]:
    place = inputs.place(arguments)
    return verify(place.state, applied_plan(place.live), connect())


def _elsewhere(arguments: argparse.Namespace) -> list[Result]:
    if arguments.key_file is None or not arguments.key_file.is_file():
        raise InputError("--key-file", "a file with the API key is needed with --url")
    key = arguments.key_file.read_text().strip()
    gateway = GatewayClient(arguments.url, key, ca_file=arguments.ca_file, elsewhere=True)
    served = [
        {"served_model_name": model.served_model_name, "task": model.task,
         "adapters": [adapter.name for adapter in model.lora_adapters]}
        for model in load_config(arguments.stack).models
    ]  # fmt: skip
    checks = gateway_checks(gateway, served)
    return run_checks(checks, lambda result: console.say(f"{result.status} {result.name}"))


if __name__ == "__main__":
    console.run(main)
