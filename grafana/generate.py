#!/usr/bin/env python3
"""Write the dashboards, or with --check say whether the committed ones are what would be written.

Needs the development environment (scripts/setup.sh dev): Grafana's Foundation SDK is not needed to run a stack.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boards.all import BOARDS

FOLDER = Path(__file__).resolve().parent / "dashboards"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: .venv/bin/python grafana/generate.py")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where something differs")
    arguments = parser.parse_args()
    wanted = {f"{board.uid}.json": board.json() for board in BOARDS}
    present = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    changed = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if not arguments.check:
        FOLDER.mkdir(exist_ok=True)
        for name in changed:
            path = FOLDER / name
            if name in wanted:
                path.write_text(wanted[name])
            else:
                path.unlink()
    for name in changed:
        print(name)
    if arguments.check and changed:
        print("not what grafana/generate.py writes: run it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
