#!/usr/bin/env python3
"""What runs of a stack on this box. Exit code 1 when a part is missing or not healthy."""

from __future__ import annotations

import argparse

from stack import console, inputs
from stack.adjust import applied_plan
from stack.docker_host import condition, connect, containers
from stack.drains import drained, replacing
from stack.lifecycle import gateway_url
from stack.smoke import services


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/status.py stack.yaml")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    arguments = parser.parse_args()
    place = inputs.place(arguments)
    plan = applied_plan(place.live)
    running, out = containers(connect(), plan["project"]), drained(place.state) | replacing(place.state)
    parts = [
        {
            "part": name,
            "condition": condition(running[name]) if name in running else "missing",
            "drained": name in out,
            "restarts": running[name].attrs["RestartCount"] if name in running else 0,
            "since": running[name].attrs["State"]["StartedAt"][:19] + "Z" if name in running else "-",
        }
        for name in services(plan)
    ]
    cordoned = {engine["name"]: engine["gpus"] for engine in plan.get("cordoned", ())}
    good = all(part["condition"] in ("running", "healthy") for part in parts)
    if arguments.json:
        console.print_json({"good": good, "url": gateway_url(plan), "parts": parts, "cordoned": cordoned})
    else:
        for part in parts:
            part["condition"] = f"{part['condition']}, drained" if part["drained"] else part["condition"]
        rows = [[str(part[key]) for key in ("part", "condition", "restarts", "since")] for part in parts]
        print(console.table(["part", "condition", "restarts", "since"], rows))
        for name, gpus in cordoned.items():
            print(f"cordoned, not run: {name} on {', '.join(gpus)}")
        print(f"gateway {gateway_url(plan)}; live tree {place.live}")
        print("This shows containers; `make smoke` proves that they serve.")
    return 0 if good else 1


if __name__ == "__main__":
    console.run(main)
