"""The Makefile: `make` alone lists every target, each with what it does."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from stacks import ROOT


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """Target -> what `make help` says of it."""
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    matches = (re.fullmatch(r"  make (\S+) +(\S.*)", line) for line in done.stdout.splitlines())
    return {match[1]: match[2] for match in matches if match}


def database() -> str:
    """The Makefile as make itself reads it."""
    command = ["make", "--print-data-base", "--question", "help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def targets() -> set[str]:
    """Every target."""
    files = database().partition("# Files\n")[2].partition("# files hash-table stats")[0]
    blocks = [block for block in files.split("\n\n") if not block.startswith("# Not a target")]
    names = [re.match(r"(?:#.*\n)*([\w-]+):", block) for block in blocks]
    return {name[1] for name in names if name}


def phony() -> set[str]:
    return {name for line in database().splitlines() if line.startswith(".PHONY:") for name in line.split()[1:]}


def test_help_lists_every_target(listed: dict[str, str]) -> None:
    assert {"help", "up", "down", "test"} <= targets()
    assert set(listed) == targets() - {"Makefile"}


def test_no_target_is_taken_for_a_file_of_its_name() -> None:
    assert phony() == targets() - {"Makefile"}


def test_make_alone_is_help(listed: dict[str, str]) -> None:
    # as a person calls it: under another make it would also say which folder it enters
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make"], cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(listed)


def test_every_target_but_help_does_something() -> None:
    for target in sorted(targets() - {"help", "Makefile"}):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), target
