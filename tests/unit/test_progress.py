"""Slow steps side by side: output kept, failures told with their last lines, and all stopped together."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from stack.errors import StackError
from stack.progress import TAIL_LINES, CancelledError, Progress, stop_group


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def progress(said: list[str]) -> Progress:
    return Progress(said.append)


def test_a_command_that_works_leaves_its_output_in_the_log(progress: Progress, tmp_path: Path) -> None:
    progress.command("it", ["sh", "-c", "echo out; echo err >&2"], log=tmp_path / "log")
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_a_command_has_the_environment_it_is_given_and_no_input(progress: Progress, tmp_path: Path) -> None:
    progress.command(
        "it", ["/bin/sh", "-c", "echo $X; cat"], log=tmp_path / "log", env={"X": "1", "PATH": "/bin:/usr/bin"}
    )
    assert (tmp_path / "log").read_text() == "1\n"


def test_a_command_that_fails_is_told_with_its_code_and_last_lines(progress: Progress, tmp_path: Path) -> None:
    with pytest.raises(StackError) as error:
        progress.command("it", ["sh", "-c", "seq 100; exit 3"], log=tmp_path / "log")
    assert "it: `sh -c` failed with exit code 3" in str(error.value)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        str(number) for number in range(101 - TAIL_LINES, 101)
    ]


def test_after_a_cancel_nothing_starts_and_what_runs_is_stopped(progress: Progress, tmp_path: Path) -> None:
    progress.cancel()
    with pytest.raises(CancelledError), progress.step("it", "building"):
        raise AssertionError("started")
    with pytest.raises(CancelledError):
        progress.command("it", ["sleep", "600"], log=tmp_path / "log")


def test_a_cancel_stops_a_running_command_and_its_children(progress: Progress, tmp_path: Path) -> None:
    ended: list[BaseException] = []
    reading, writing = os.pipe()

    def run(output: IO[bytes]) -> None:
        try:
            progress.command("it", ["sh", "-c", "sleep 600 & echo ready; wait"], log=tmp_path / "log", stdout=output)
        except CancelledError as error:
            ended.append(error)

    with os.fdopen(reading, "rb") as answers:
        with os.fdopen(writing, "wb") as output:
            thread = threading.Thread(target=run, args=(output,))
            thread.start()
            assert answers.readline() == b"ready\n"
            progress.cancel()
            thread.join(60)
        assert [str(error) for error in ended] == ["it: stopped, as something else failed"]
        # the children hold the pipe too: it is at its end when the last of them is gone
        assert select.select([answers], [], [], 30)[0]
        assert answers.read() == b""


def test_a_stopped_command_takes_its_children_along() -> None:
    script = "import subprocess, sys; subprocess.Popen(['sleep', '600']); print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    stop_group(process)
    # the child holds the pipe too: it is at its end only when both are gone
    assert process.stdout.read() == b""
    assert process.returncode == -signal.SIGTERM
    process.stdin.close()
    process.stdout.close()


def test_a_step_that_ends_well_says_so_and_one_that_does_not_does_not(progress: Progress, said: list[str]) -> None:
    with progress.step("a", "pull"):
        pass
    assert said[0] == "a: pull"
    assert "done" in said[1]
    with pytest.raises(StackError), progress.step("b", "pull"):
        raise StackError("no")
    assert said[2:] == ["b: pull"]
