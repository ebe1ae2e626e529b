"""What the vLLM that is installed here knows.

First argument: JSON list of argv lists. stdout: one line `RESULT {"version", "flags", "metrics", "variables",
"refusals"}`: flag -> its default as text, names of the metrics and of the environment variables, and the parser's
complaint (or null) about each argv. Metrics are those that vLLM's sources name.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib import import_module
from pathlib import Path

from .parser import make_parser, refusals

# a whole string such as "vllm:num_requests_running"; with two colons it is the name of an operator of torch
METRIC = re.compile(r"""["'](vllm:[a-z][a-z0-9_]+)["']""")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def flags(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Every flag -> its default; of a flag that can be said either way, the positive one alone."""
    found = {}
    for action in parser._actions:
        long = [flag for flag in action.option_strings if flag.startswith("--") and flag not in ("--help", "--version")]
        for flag in long:
            if not (flag.startswith("--no-") and "--" + flag[5:] in long):
                found[flag] = ADDRESS.sub("", str(getattr(action.default, "value", action.default)))
    return found


def metrics(package: Path) -> list[str]:
    """Names of the metrics that the package's sources define."""
    return sorted({name for path in package.rglob("*.py") for name in METRIC.findall(path.read_text(errors="replace"))})


def main() -> None:
    """Print everything about the vLLM that is installed here."""
    vllm = import_module("vllm")
    parser = make_parser()
    found = {
        "version": vllm.__version__,
        "flags": flags(parser),
        "metrics": metrics(Path(str(vllm.__file__)).parent),
        "variables": sorted(import_module("vllm.envs").environment_variables),
        "refusals": refusals(parser, json.loads(sys.argv[1])),
    }
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
