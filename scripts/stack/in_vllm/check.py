"""vLLM's own parser (and its configuration check) on planned command lines.

First argument: JSON list of argv lists. stdout: one line `RESULT <JSON list>`, an error text or null for each argv.
With `--configure` each argv is also taken as far as vLLM's engine configuration, which reads the model.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from .parser import make_parser, refusals


def configure(arguments: Any) -> None:
    import_module("vllm.engine.arg_utils").AsyncEngineArgs.from_cli_args(arguments).create_engine_config()


def main() -> None:
    argvs = json.loads(sys.argv[1])
    found = refusals(make_parser(), argvs, *([configure] if "--configure" in sys.argv else []))
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
