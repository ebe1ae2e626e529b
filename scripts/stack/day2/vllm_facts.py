"""Runs where a vLLM is installed (its image, or a throw-away environment): what this version knows.

First argument: JSON list of argv lists. stdout: one line `RESULT {"version", "flags", "metrics", "variables",
"refusals"}`: flag -> its default as text, names of the metrics and of the environment variables, and the parser's
complaint (or null) about each argv. Metrics are those that vLLM's sources name.

The file of an argv's `--config` holds an engine's key and is nowhere here: another stands for it.
"""

import argparse
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn

# a whole string such as "vllm:num_requests_running"; with two colons it is the name of an operator of torch
METRIC = re.compile(r"""["'](vllm:[a-z][a-z0-9_]+)["']""")
KEY = "sk-of-no-engine"
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class RefusedError(Exception):
    """The parser's own message."""


def refuse(message: str) -> NoReturn:
    raise RefusedError(message)


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


def refusal(parser: Any, validate: Any, argv: list[str], config: str) -> str | None:
    """What the parser says against one argv. config: a file with KEY, in the place of the engine's own."""
    with_key = "--config" in argv
    if with_key:
        place = argv.index("--config") + 1
        argv = [*argv[:place], config, *argv[place + 1 :]]
    try:
        arguments = parser.parse_args(argv)
        validate(arguments)
    except (RefusedError, ValueError, TypeError) as error:
        return str(error)
    except SystemExit:
        return "it ends the program instead of serving (--help, --version ...)"
    if with_key and arguments.api_key != [KEY]:
        return "this vLLM does not take its API key from --config: the engine would ask for none"
    return None


def first_module(*names: str) -> Any:
    """Modules moved between versions: the first that is there."""
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or "?"):
                raise
    raise ModuleNotFoundError(f"none of {', '.join(names)}: this vLLM is laid out in another way")


def main() -> None:
    """Print everything about the vLLM that is installed here."""
    vllm = import_module("vllm")
    utils = first_module("vllm.utils.argparse_utils", "vllm.utils")
    cli = first_module("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
    parser = cli.make_arg_parser(utils.FlexibleArgumentParser())
    parser.error = refuse
    with NamedTemporaryFile("w", suffix=".yaml") as config:
        config.write(json.dumps({"api-key": [KEY]}))
        config.flush()
        check = cli.validate_parsed_serve_args
        refusals = [refusal(parser, check, argv, config.name) for argv in json.loads(sys.argv[1])]
    found = {
        "version": vllm.__version__,
        "flags": flags(parser),
        "metrics": metrics(Path(str(vllm.__file__)).parent),
        "variables": sorted(import_module("vllm.envs").environment_variables),
        "refusals": refusals,
    }
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
