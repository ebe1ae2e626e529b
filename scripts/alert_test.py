#!/usr/bin/env python3
"""Send a test alert to every receiver, the way that real ones go; say which of them Alertmanager could not reach."""

from __future__ import annotations

import argparse

from stack import adjust, console, inputs
from stack.errors import InputError
from stack.observe.alert_test import RECEIVED_SECONDS, Sent, send


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/alert_test.py stack.yaml --json")
    inputs.add_arguments(parser)
    parser.add_argument(
        "--wait", type=float, default=RECEIVED_SECONDS, metavar="S",
        help="seconds until every receiver has to have taken it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    plan = adjust.applied(inputs.place(arguments).live)
    if not plan.watch["receivers"]:
        raise InputError("observability.receivers", "nobody is told of alerts: name receivers, then `make up`")
    sent = send(plan.as_dict(), arguments.wait)
    if arguments.json:
        console.print_json([entry.as_dict() for entry in sent])
    else:
        rows = [[entry.integration, f"{entry.notifications:g}", f"{entry.failed:g}", _said(entry)] for entry in sent]
        print(console.table(["sent by", "notifications", "failed", "result"], rows))
        if not all(entry.arrived for entry in sent):
            print("next: `make logs SERVICE=alertmanager` says what the receiver answered")
    return 0 if all(entry.arrived for entry in sent) else 1


def _said(entry: Sent) -> str:
    return "taken" if entry.arrived else ("refused or not reached" if entry.failed else "nothing was sent")


if __name__ == "__main__":
    console.run(main)
