#!/usr/bin/env python3
"""Deploy to this host what a git repository says, if it is signed by an allowed signer and comes after what is applied.

A systemd timer runs it (role pull_deploy, docs/gitops.md). How it ended is written for the node exporter.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from stack import console
from stack.pull import settings
from stack.pull.run import play, pull, shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/pull.py /etc/vllm-onprem/pull.yaml")
    parser.add_argument("settings", type=Path, metavar="FILE", help="what is pulled, and whose signature is trusted")
    parser.add_argument(
        "--again", action="store_true", help="deploy what is applied already too, and what was given up after failing"
    )
    parser.add_argument("--json", action="store_true", help="print how it ended as JSON")
    arguments = parser.parse_args()
    result, remembered = pull(settings.load(arguments.settings), play, again=arguments.again)
    if arguments.json:
        console.print_json({"result": result, **asdict(remembered)})
    else:
        print(shown(result, remembered))
    return 0


if __name__ == "__main__":
    console.run(main)
