"""vLLM's own argument parser, and what it says against a command line.

The file of an argv's `--config` holds an engine's key and is nowhere here: another stands for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn

KEY = "sk-of-no-engine"


class RefusedError(Exception):
    """The parser's own message."""


def make_parser() -> Any:
    """The parser of `vllm serve`; it raises RefusedError where it would end the program."""
    parser = _cli().make_arg_parser(_first_module("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser())
    parser.error = _refuse
    return parser


def refusals(
    parser: Any, argvs: Sequence[Sequence[str]], then: Callable[[Any], object] = lambda arguments: None
) -> list[str | None]:
    """What is said against each argv, by the parser and by what is done with its arguments then; None for nothing."""
    validate = _cli().validate_parsed_serve_args
    with _stand_in() as config:
        return [_refusal(parser, validate, list(argv), config, then) for argv in argvs]


def _first_module(*names: str) -> Any:
    """Modules moved between versions: the first that is there."""
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or "?"):
                raise
    raise ModuleNotFoundError(f"none of {', '.join(names)}: this vLLM is laid out in another way")


def _cli() -> Any:
    return _first_module("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")


def _refuse(message: str) -> NoReturn:
    raise RefusedError(message)


@contextmanager
def _stand_in() -> Iterator[str]:
    """Path of a file that says KEY as an engine's own says its keys."""
    with NamedTemporaryFile("w", suffix=".yaml") as config:
        config.write(json.dumps({"api-key": [KEY]}))
        config.flush()
        yield config.name


def _refusal(parser: Any, validate: Any, argv: list[str], config: str, then: Callable[[Any], object]) -> str | None:
    with_key = "--config" in argv
    if with_key:
        argv[argv.index("--config") + 1] = config
    try:
        arguments = parser.parse_args(argv)
        validate(arguments)
        if with_key and arguments.api_key != [KEY]:
            return "this vLLM does not take its API key from --config: the engine would ask for none"
        then(arguments)
    except (RefusedError, ValueError, TypeError) as error:
        return str(error)
    except SystemExit:
        return "it ends the program instead of serving (--help, --version ...)"
    return None
