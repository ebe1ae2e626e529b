#!/usr/bin/env python3
"""What is missing or wrong on this box, before anything is tried: a line each, with what to do. Changes nothing.

Exit code 1 when there is a problem; warnings alone are 0.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from stack import console, inputs
from stack.day2 import doctor, doctor_docker, doctor_gpu, doctor_host, doctor_running, doctor_stack


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: scripts/doctor.py stack.yaml --json")
    inputs.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args()
    parts = (doctor_host, doctor_docker, doctor_gpu, doctor_stack, doctor_running)
    findings = list(doctor.run(doctor.look(arguments), [check for part in parts for check in part.CHECKS]))
    problems = [one for one in findings if one.status == "problem"]
    if arguments.json:
        console.print_json({"good": not problems, "findings": [asdict(one) for one in findings]})
    else:
        for one in findings:
            mark = console.coloured(f"{one.status:8}", doctor.MARKS[one.status])
            print(f"{mark} {one.what}: {one.detail}" + (f"\n         -> {one.todo}" if one.todo else ""))
        warnings = sum(one.status == "warning" for one in findings)
        print(f"{len(problems)} problem(s), {warnings} warning(s).")
    return 1 if problems else 0


if __name__ == "__main__":
    console.run(main)
