"""What differs between two releases of a host, and its releases in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stack.console import table
from stack.deploy.host_stack import RULES
from stack.deploy.release import FOLDERS, HOSTS, REQUIREMENTS, STACK
from stack.effects import effects, service_hashes
from stack.fleet_lock import lock_file
from stack.tree import Texts, checksums, texts

# The last is of a fleet alone.
INPUTS = (STACK, HOSTS, lock_file(Path(HOSTS)).name)


def changes(old: Path, new: Path, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[Texts]:
    """Files that differ, what a person wrote first. old, new: the releases' folders; before, after: what was rendered
    of them.
    """
    return texts(_written(old), _written(new)) + texts(before, after)


def program_changes(old: Path, new: Path) -> list[str]:
    """Paths of the program, of its packages' lock and of rule files that differ between two releases' folders."""
    sides = [checksums(_program(folder)) for folder in (old, new)]
    return sorted(path for path in {*sides[0], *sides[1]} if sides[0].get(path) != sides[1].get(path))


def rendered_effects(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, str]:
    """Part -> create, recreate, reload or remove: what the second tree does to a stack that runs the first."""
    return effects(checksums(before), checksums(after), service_hashes(before), service_hashes(after))


def release_table(found: Sequence[Mapping[str, Any]], running: str | None) -> list[str]:
    """Lines for a person. found: summaries, the last applied first."""
    head = ["", "release", "applied", "by", "how", "commit", "made", "by", "all hosts"]
    rows = [
        [
            "*" if each["running"] else "",
            each["id"],
            each["applied"] or "never",
            each["by"] or "",
            each["how"] or "",
            (each["commit"] or "none")[:12] + ("+changes" if each["dirty"] else ""),
            each["when"],
            each["who"],
            each["common"],
        ]
        for each in found
    ]
    unknown = running and not any(each["running"] for each in found)
    odd = f"Release {running} runs and has no record: an earlier version sent it."
    return [table(head, rows), *([odd] if unknown else [])]


def _written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in INPUTS if (folder / name).is_file()}


def _program(folder: Path) -> dict[str, bytes]:
    paths = [path for name in (*FOLDERS, RULES) for path in (folder / name).rglob("*")]
    files = [path for path in (*paths, folder / REQUIREMENTS) if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
