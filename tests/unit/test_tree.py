"""A rendered tree on disk: exactly the planned files, whatever a killed run or a stranger left there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from stack.errors import StackError
from stack.render import MANIFEST, manifest
from stack.tree import Change, compare, read_tree, write_tree

OLD = {"compose.yaml": b"old", "nginx/nginx.conf": b"same", "nginx/conf.d/gone.conf": b"gone"}
NEW = {"compose.yaml": b"new", "nginx/nginx.conf": b"same", "prometheus/targets/vllm.json": b"[]"}


def tree(files: dict[str, bytes]) -> dict[str, bytes]:
    return {**files, MANIFEST: manifest(files)}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_tree(tmp_path, tree(OLD))
    assert read_tree(tmp_path) == tree(OLD) == on_disk(tmp_path)


def test_a_folder_without_a_manifest_is_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert read_tree(tmp_path) == {}
    assert read_tree(tmp_path / "nowhere") == {}


def test_the_next_tree_replaces_adds_and_removes(tmp_path: Path) -> None:
    write_tree(tmp_path, tree(OLD))
    write_tree(tmp_path, tree(NEW))
    assert on_disk(tmp_path) == tree(NEW)


def test_files_that_do_not_differ_are_not_touched(tmp_path: Path) -> None:
    write_tree(tmp_path, tree(OLD))
    before = (tmp_path / "nginx/nginx.conf").stat()
    changed = (tmp_path / "compose.yaml").stat()
    write_tree(tmp_path, tree(NEW))
    after = (tmp_path / "nginx/nginx.conf").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (tmp_path / "compose.yaml").stat().st_ino != changed.st_ino


def test_files_that_no_manifest_knows_are_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "nginx/conf.d/mine.conf"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    write_tree(tmp_path, tree(OLD))
    write_tree(tmp_path, tree(NEW))
    assert foreign.read_text() == "mine"
    assert "nginx/conf.d/mine.conf" not in read_tree(tmp_path)


def test_the_difference_names_each_file_and_what_it_needs() -> None:
    assert compare(tree(OLD), tree(NEW)) == [
        Change("compose.yaml", "changed", "compose", "recreate"),
        Change("nginx/conf.d/gone.conf", "removed", "nginx", "reload"),
        Change("prometheus/targets/vllm.json", "added", "prometheus", "none"),
    ]
    assert compare(tree(NEW), tree(NEW)) == []


class Killed(BaseException):
    """Nothing catches it on the way, as nothing catches a SIGKILL."""


def write_and_die(folder: Path, files: dict[str, bytes], after: int, patch: pytest.MonkeyPatch) -> bool:
    """Write a tree, killed before the step of this number. False when it came to its end."""
    steps = count()

    def dying(method: Callable[..., object]) -> Callable[..., object]:
        def call(path: Path, *arguments: object, **options: object) -> object:
            if next(steps) == after:
                raise Killed
            return method(path, *arguments, **options)

        return call

    with patch.context() as patched:
        for name in ("write_bytes", "rename", "unlink"):
            patched.setattr(Path, name, dying(getattr(Path, name)))
        try:
            write_tree(folder, files)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("first", [OLD, {}])
@pytest.mark.parametrize("wanted", [OLD, NEW])
def test_wherever_a_run_was_cut_off_the_next_one_sees_and_repairs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: dict[str, bytes], wanted: dict[str, bytes]
) -> None:
    for after in count():
        folder = tmp_path / str(after)
        if first:
            write_tree(folder, tree(first))
        if not write_and_die(folder, tree(NEW), after, monkeypatch):
            break
        found = {path: content for path, content in on_disk(folder).items() if not path.endswith(".partial")}
        assert bool(compare(read_tree(folder), tree(wanted))) == (
            {**found, MANIFEST: b""} != {**tree(wanted), MANIFEST: b""}
        )
        write_tree(folder, tree(wanted))
        left = {path: content for path, content in on_disk(folder).items() if not path.endswith(".partial")}
        assert left == tree(wanted)
        write_tree(folder, tree(NEW))
        assert on_disk(folder) == tree(NEW)
    assert after > 2 * len(NEW)


def test_a_first_run_that_was_cut_off_is_seen_and_repaired_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_bytes(b"ne")
    (tmp_path / ".compose.yaml.partial").write_bytes(b"n")
    assert len(compare(read_tree(tmp_path), tree(NEW))) == len(NEW)
    write_tree(tmp_path, tree(NEW))
    assert on_disk(tmp_path) == tree(NEW)


@pytest.mark.parametrize("damage", [b"changed by hand", None])
def test_a_file_that_was_changed_or_deleted_by_hand_is_put_back(tmp_path: Path, damage: bytes | None) -> None:
    write_tree(tmp_path, tree(NEW))
    target = tmp_path / "nginx/nginx.conf"
    target.write_bytes(damage) if damage is not None else target.unlink()
    assert [change.path for change in compare(read_tree(tmp_path), tree(NEW))] == ["nginx/nginx.conf"]
    write_tree(tmp_path, tree(NEW))
    assert on_disk(tmp_path) == tree(NEW)


def test_a_mode_that_was_changed_by_hand_is_put_back(tmp_path: Path) -> None:
    write_tree(tmp_path, tree(NEW))
    target = tmp_path / "nginx/nginx.conf"
    target.chmod(0o600)
    write_tree(tmp_path, tree(NEW))
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_containers_of_other_users_may_read_every_file(tmp_path: Path) -> None:
    os.umask(0o077)
    write_tree(tmp_path, tree(NEW))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o644}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": [{"no path": 1}]}', '{"files": 3}', "not json"])
def test_a_manifest_that_is_none_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(StackError, match="delete"):
        read_tree(tmp_path)
