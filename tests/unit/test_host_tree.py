"""The module that sends a tree: what it writes, what it leaves alone, what it shows; run as Ansible runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unit import ansible_module


def tree(*paths: str) -> dict[str, str]:
    """Files that hold their own name, and their listing."""
    return {path: f"{path}\n" for path in paths} | {
        "manifest.json": json.dumps({"files": [{"path": p} for p in paths]})
    }


def send(dest: Path, files: dict[str, str], *, check: bool = False) -> dict[str, Any]:
    return ansible_module.run("host_tree", {"dest": str(dest), "files": files, "_ansible_check_mode": check})


def test_ansible_can_start_it(tmp_path: Path) -> None:
    found = ansible_module.start("host_tree", {"dest": str(tmp_path), "files": tree("a")})
    assert found["sent"] == ["a", "manifest.json"]
    assert (tmp_path / "a").read_text() == "a\n"


def test_files_are_written_and_again_nothing_is(tmp_path: Path) -> None:
    files = tree("a", "nginx/b")
    first = send(tmp_path / "t", files)
    assert (first["changed"], first["sent"]) == (True, ["a", "nginx/b", "manifest.json"])
    assert (tmp_path / "t/nginx/b").read_text() == "nginx/b\n"
    assert (tmp_path / "t/nginx/b").stat().st_mode & 0o777 == 0o644
    again = send(tmp_path / "t", files)
    assert (again["changed"], again["sent"], again["diff"]) == (False, [], [])


def test_what_is_not_wanted_any_more_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    send(tmp_path, tree("a", "b"))
    (tmp_path / "mine").write_text("x")
    found = send(tmp_path, tree("a"))
    assert found["removed"] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "manifest.json", "mine"]


def test_a_look_shows_contents_and_changes_nothing(tmp_path: Path) -> None:
    send(tmp_path, tree("a", "b"))
    changed = {**tree("a"), "a": "new\n"}
    found = send(tmp_path, changed, check=True)
    assert [(each["before"], each["after"]) for each in found["diff"]] == [("a\n", "new\n"), ("b\n", "")]
    assert (tmp_path / "a").read_text() == "a\n"
    assert (tmp_path / "b").exists()


def test_a_look_at_a_host_without_a_tree_shows_all_of_it(tmp_path: Path) -> None:
    found = send(tmp_path / "none", tree("a"), check=True)
    assert [(each["before"], each["after"]) for each in found["diff"]] == [("", "a\n")]
    assert not (tmp_path / "none").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "nginx").write_text("a file where a folder shall be")
    found = send(tmp_path, tree("nginx/b"))
    assert found["failed"]
    assert "nginx" in found["msg"]
