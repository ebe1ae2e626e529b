"""API keys: made once, private, never silently replaced or accepted when they cannot work."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from stack.api_keys import ensure_keys, key_file, key_hashes
from stack.errors import StackError
from stack.private_file import write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_missing_keys_are_made_once_and_never_rewritten(tmp_path: Path) -> None:
    assert ensure_keys(tmp_path, ["alice", "bob"]) == ["alice", "bob"]
    before = key_file(tmp_path, "alice").read_bytes()
    assert ensure_keys(tmp_path, ["alice", "bob", "carol"]) == ["carol"]
    assert key_file(tmp_path, "alice").read_bytes() == before


def test_keys_are_private_long_and_different(tmp_path: Path) -> None:
    names = ["alice", "bob"]
    ensure_keys(tmp_path, names)
    keys = {key_file(tmp_path, name).read_text().strip() for name in names}
    assert len(keys) == 2
    assert all(len(key) >= 43 for key in keys)  # 256 bits in base64
    assert {mode(key_file(tmp_path, name)) for name in names} == {0o400}
    assert mode(key_file(tmp_path, "alice").parent) == 0o700


def test_a_key_that_somebody_brought_is_kept(tmp_path: Path) -> None:
    path = key_file(tmp_path, "alice")
    path.parent.mkdir(parents=True)
    path.write_text("a-key-from-the-vault\n")
    assert ensure_keys(tmp_path, ["alice"]) == []
    assert key_hashes(tmp_path, ["alice"]) == {hashlib.sha256(b"a-key-from-the-vault").hexdigest(): "alice"}


def test_only_keys_that_are_asked_for_and_there_are_hashed(tmp_path: Path) -> None:
    ensure_keys(tmp_path, ["alice", "bob"])
    assert list(key_hashes(tmp_path, ["bob", "carol"]).values()) == ["bob"]


@pytest.mark.parametrize("content", ["", "\n", "short", "two words of some length", "one\nline\nof\nmany\nlines"])
def test_a_file_that_holds_no_key_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    path = key_file(tmp_path, "alice")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(StackError) as error:
        key_hashes(tmp_path, ["alice"])
    assert str(path) in str(error.value)
    assert not content.strip() or content.strip() not in str(error.value)


def test_a_file_that_is_not_text_is_refused_by_its_path(tmp_path: Path) -> None:
    path = key_file(tmp_path, "alice")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(StackError, match="cannot be read"):
        key_hashes(tmp_path, ["alice"])


def test_two_clients_with_one_key_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        path = key_file(tmp_path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a-key-from-the-vault\n")
    with pytest.raises(StackError, match="same key as 'alice'"):
        key_hashes(tmp_path, ["alice", "bob"])


def test_a_folder_in_place_of_a_key_is_refused_by_its_path(tmp_path: Path) -> None:
    key_file(tmp_path, "alice").mkdir(parents=True)
    with pytest.raises(StackError, match="cannot be read"):
        key_hashes(tmp_path, ["alice"])


def test_a_private_file_replaces_what_was_left_half_written(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_text("half")
    write_private(tmp_path / "file", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert mode(tmp_path / "file") == 0o400
