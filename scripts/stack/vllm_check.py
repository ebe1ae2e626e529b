"""Runs inside the engine's image: vLLM's own parser (and its configuration check) on planned command lines.

First argument: JSON list of argv lists. stdout: one line `RESULT <JSON list>`, an error text or null for each argv.
With `--configure` each argv is also taken as far as vLLM's engine configuration, which reads the model.
"""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

# stands for the real one, which no check needs to see
KEY = "sk-of-no-engine"


class RefusedError(Exception):
    """The parser's own message."""


def refuse(message: str) -> NoReturn:
    raise RefusedError(message)


def check(argv: list[str], configure: bool) -> str | None:
    from vllm.engine.arg_utils import AsyncEngineArgs  # type: ignore[import-not-found]  # noqa: PLC0415
    from vllm.entrypoints.launchers.cli_args import (  # type: ignore[import-not-found]  # noqa: PLC0415
        make_arg_parser,
        validate_parsed_serve_args,
    )
    from vllm.utils.argparse_utils import (  # type: ignore[import-not-found]  # noqa: PLC0415
        FlexibleArgumentParser,
    )

    parser: Any = make_arg_parser(FlexibleArgumentParser())
    parser.error = refuse
    with_key = "--config" in argv
    if with_key:
        Path(argv[argv.index("--config") + 1]).write_text(json.dumps({"api-key": [KEY]}))
    try:
        arguments = parser.parse_args(argv)
        validate_parsed_serve_args(arguments)
        if with_key and arguments.api_key != [KEY]:
            return "this vLLM does not take its API key from --config: the engine would ask for none"
        if configure:
            AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
    except (RefusedError, ValueError, TypeError) as error:
        return str(error)
    except SystemExit:
        return "it ends the program instead of serving (--help, --version ...)"
    return None


if __name__ == "__main__":
    configure = "--configure" in sys.argv
    results = [check(argv, configure) for argv in json.loads(sys.argv[1])]
    print("RESULT " + json.dumps(results), flush=True)
