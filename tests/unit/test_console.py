"""What a person sees of a command: tables, colours on a terminal only, messages and exit codes."""

from __future__ import annotations

import io
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from docker.errors import DockerException

from stack.console import coloured, print_json, run, step, table
from stack.errors import InputError, Problem, StackError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = table(["name", "GPUs"], [["a", "0"], ["longer-name", "1, 2"]])
    assert text.splitlines() == [
        "name         GPUs",
        "-----------  ----",
        "a            0",
        "longer-name  1, 2",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["a", "bc"], []).splitlines() == ["a  bc", "-  --"]


def test_a_colour_is_for_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("good", "green") == "good"
    monkeypatch.setattr("sys.stdout", Terminal())
    assert coloured("good", "green") == "\033[32mgood\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("good", "green") == "good"


def stop(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


def terminated() -> int:
    signal.raise_signal(signal.SIGTERM)
    return 0


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (stop(StackError("it broke; mend it")), 1, "error: it broke; mend it\n"),
        (stop(InputError("stack.yaml", "no")), 2, "error: stack.yaml: no\n"),
        (stop(OSError(28, "No space left on device", "/x")), 1, "error: [Errno 28] No space left on device: '/x'\n"),
        (stop(DockerException("engine is gone")), 1, "error: engine is gone\n"),
        (stop(requests.ConnectionError("no route")), 1, "error: no route\n"),
        (stop(KeyboardInterrupt()), 130, "interrupted\n"),
        (terminated, 130, "interrupted\n"),
    ],
)
def test_how_a_command_ends_is_its_exit_code_and_message(
    main: Callable[[], int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", said)


def test_what_a_command_writes_may_be_read_by_others(tmp_path: Path) -> None:
    def main() -> int:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/file").touch()
        return 0

    os.umask(0o077)
    with pytest.raises(SystemExit):
        run(main)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "folder/file").stat().st_mode) == 0o644


def test_a_reader_that_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        run(stop(BrokenPipeError()))
    assert ended.value.code == 0


def test_an_error_that_nobody_foresaw_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(stop(ZeroDivisionError()))


def test_json_is_the_same_for_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": 1, "a": [1]})
    first = capsys.readouterr().out
    print_json({"a": [1], "b": 1})
    assert capsys.readouterr().out == first
    assert first.index('"a"') < first.index('"b"')


def test_a_step_says_that_it_began_and_lets_errors_through() -> None:
    said: list[str] = []
    with pytest.raises(StackError), step("pulling", said.append):
        raise StackError("gone")
    assert said == ["pulling"]


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        ("unreadable", "f: unreadable"),
        ([Problem("a.b", "no")], "f: a.b: no"),
        ([Problem("a", "no"), Problem("", "odd")], "f: 2 problems\n  a: no\n  odd"),
    ],
)
def test_an_input_error_names_the_file_once_and_each_problem_on_a_line(
    problems: str | list[Problem], text: str
) -> None:
    assert str(InputError("f", problems)) == text
