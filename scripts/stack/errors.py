"""What a user is told when something is wrong, and the exit code that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class StackError(Exception):
    """Something failed while doing; exit code 1. The message says what, where and what to do."""

    exit_code = 1


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with an input.

    where: key path such as ``models[0].replicas``, or empty for the file as a whole.
    what: the value found, what is allowed, and the nearest right word.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class InputError(StackError):
    """Bad input, found before the first change; exit code 2. Carries every problem found."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[Problem] | str) -> None:
        self.source = source
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__(self.text())

    def text(self) -> str:
        """The message: the file, then one line for each problem."""
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}"
        lines = [f"{self.source}: {len(self.problems)} problems"]
        return "\n".join(lines + [f"  {problem}" for problem in self.problems])
