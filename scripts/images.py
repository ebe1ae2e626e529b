#!/usr/bin/env python3
"""Make every container image present on this machine, and print which image each role runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from stack.errors import StackError
from stack.image_store import connect, ensure
from stack.images import choose_source, load_pins, references

ROOT = Path(__file__).resolve().parent.parent

EPILOG = """\
example:
  scripts/images.py --device cpu --source auto     # pulls, or builds stand-ins where no registry answers

Prints role and image reference, one a line, on stdout; progress goes to stderr.
Exit codes: 0 done, 1 failed, 2 bad input.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        choices=["auto", "registry", "build"],
        default="auto",
        help="where images come from; auto asks the registry and builds when it does not answer, and means "
        "registry on cuda (default: %(default)s)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what engines run on (default: cpu)")
    parser.add_argument("--mirror", metavar="HOST/PATH", help="registry to pull from instead of Docker Hub")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    args = parser.parse_args(argv)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}", file=sys.stderr, flush=True)

    try:
        pins = load_pins(ROOT)
        source = choose_source(args.source, args.device, args.mirror)
        refs = references(ROOT, pins, source, args.device, args.mirror)
        made = ensure(refs, source, ROOT, say, connect())
        if made:
            say(f"{len(made)} images {'built' if source == 'build' else 'pulled'}")
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(refs, indent=2, sort_keys=True))
    else:
        print("\n".join(f"{role:14} {reference}" for role, reference in sorted(refs.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
