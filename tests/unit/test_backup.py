"""A backup holds what cannot be made again; one that is damaged or none of ours is refused before the first change."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stack.day2 import archive, restore
from stack.day2.archive import Manifest, entry_of, opened, write
from stack.day2.backup import kept_files
from stack.day2.confirm import confirm
from stack.day2.restore import check_is_ours
from stack.errors import InputError
from stack.inputs import Place

FILES = {
    "secrets/api-keys/default": (b"sk-of-before\n", 0o400),
    "tls/ab.crt": (b"cert", 0o644),
    "drained.json": (b"[]", 0o644),
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A stack's folder."""
    folder = tmp_path / "state"
    for name, (content, mode) in {**FILES, "live/plan.json": (b"{}", 0o644), "cache/engine/x": (b"x", 0o644)}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    (folder / "secrets").chmod(0o700)
    (folder / "lock").touch()
    (folder / "replaced-2026").mkdir()
    (folder / "replaced-2026/x").write_text("old")
    return folder


@pytest.fixture
def backup(state: Path, tmp_path: Path) -> Path:
    """A good backup of it."""
    sources = {f"state/{path.relative_to(state)}": path for path in kept_files(state)}
    folders = {"secrets": (0o700, os.getuid(), os.getgid()), "secrets/api-keys": (0o755, os.getuid(), os.getgid())}
    members = {name: entry_of(path) for name, path in sources.items()}
    write(tmp_path / "backup.tar", Manifest("s", "2026", "here", "0.32.0", members, folders), sources)
    return tmp_path / "backup.tar"


def test_what_is_made_anew_is_left_out(state: Path) -> None:
    assert [str(path.relative_to(state)) for path in kept_files(state)] == sorted(FILES)


def test_a_good_backup_is_private_and_reads_back(backup: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    with opened(backup) as (manifest, tar):
        assert (manifest.stack, sorted(manifest.members)) == ("s", sorted(f"state/{name}" for name in FILES))
        assert archive.stream(tar, "state/tls/ab.crt").read() == b"cert"


@pytest.mark.parametrize("place", [700, 1600, 3000, 4700])
def test_a_damaged_byte_anywhere_is_refused(backup: Path, place: int) -> None:
    data = bytearray(backup.read_bytes())
    content = [index for index, value in enumerate(data) if value]  # padding counts for nothing
    data[min(content, key=lambda index: abs(index - place))] ^= 0x10
    backup.write_bytes(data)
    with pytest.raises(InputError), opened(backup):
        pass


@pytest.mark.parametrize("length", [0, 100, 600, 2000, 3000])
def test_one_that_is_cut_off_is_refused(backup: Path, length: int) -> None:
    backup.write_bytes(backup.read_bytes()[:length])
    with pytest.raises(InputError), opened(backup):
        pass


def forged(path: Path, members: dict[str, bytes], listed: dict[str, bytes] | None = None, **keys: Any) -> Path:
    """An archive with any member."""
    listed = members if listed is None else listed
    entries = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": 0o644, "uid": 0, "gid": 0}
        for name, data in listed.items()
    }
    document = {"format": archive.FORMAT, "version": archive.VERSION, "stack": "s", "made": "", "host": "", "vllm": "",
                "members": entries, "folders": {}, **keys}  # fmt: skip
    with tarfile.open(path, "w") as tar:
        for name, data in {"manifest.json": json.dumps(document).encode(), **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "keys", "why"),
    [
        ({"state/../../etc/passwd": b"x"}, {}, "no place to restore to"),
        ({"/etc/passwd": b"x"}, {}, "no place to restore to"),
        ({"state//etc/passwd": b"x"}, {}, "no place to restore to"),
        ({"volumes/../x.tar": b"x"}, {}, "no place to restore to"),
        ({"state/x": b"x"}, {"folders": {"../../x": [0, 0, 0]}}, "no place to restore to"),
        ({"state/x": b"x"}, {"format": "another"}, "in a format"),
        ({"state/x": b"x"}, {"version": 2}, "in a format"),
        ({"state/x": b"x"}, {"folders": None}, "manifest cannot be read"),
        ({"state/x": b"x"}, {"folders": {"secrets": [448]}}, "manifest cannot be read"),
    ],
)
def test_a_forged_one_is_refused(tmp_path: Path, members: dict[str, bytes], keys: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why), opened(forged(tmp_path / "x.tar", members, **keys)):
        pass


def test_a_member_too_many_or_too_few_is_refused(tmp_path: Path) -> None:
    two = {"state/a": b"a", "state/b": b"b"}
    with pytest.raises(InputError, match="does not list"), opened(forged(tmp_path / "x", two, {"state/a": b"a"})):
        pass
    with pytest.raises(InputError, match="cut off"), opened(forged(tmp_path / "x", {"state/a": b"a"}, two)):
        pass


@pytest.mark.parametrize("content", [b"", b"text\n", b"\0" * 10240])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError), opened(tmp_path / "x"):
        pass
    with pytest.raises(InputError, match="No such file"), opened(tmp_path / "none"):
        pass


def test_another_stacks_backup_is_refused(backup: Path, state: Path) -> None:
    with opened(backup) as (manifest, _):
        check_is_ours(backup, manifest, Place("s", state))
        with pytest.raises(InputError, match="a backup of the stack 's', and this is 'other'"):
            check_is_ours(backup, manifest, Place("other", state))


def test_files_come_back_as_they_were_and_what_was_there_is_put_aside(backup: Path, state: Path) -> None:
    inode = (state / "tls").stat().st_ino
    (state / "secrets/api-keys/default").unlink()
    (state / "secrets/api-keys/later").write_text("sk-later")
    (state / "tls/cd.crt").write_text("shown now")
    (state / "secrets").chmod(0o755)
    with opened(backup) as (manifest, tar):
        aside = restore._files(state, manifest, tar, "now")
    for name, (content, mode) in FILES.items():
        assert ((state / name).read_bytes(), (state / name).stat().st_mode & 0o777) == (content, mode)
    assert not (state / "secrets/api-keys/later").exists()
    assert (state / "secrets").stat().st_mode & 0o777 == 0o700
    assert (state / "tls/cd.crt").exists(), "nginx shows it until it is told of the restored one"
    assert (state / "tls").stat().st_ino == inode, "the container has this very folder mounted"
    assert (state / "live/plan.json").exists()
    assert aside is not None
    assert aside.stat().st_mode & 0o777 == 0o700
    assert (aside / "secrets/api-keys/later").read_text() == "sk-later"
    assert not (state / ".restoring").exists()


def test_on_a_fresh_box_everything_is_made(backup: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh/stacks/s"
    with opened(backup) as (manifest, tar):
        assert restore._files(fresh, manifest, tar, "now") is None
    assert sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file()) == sorted(FILES)
    assert (fresh / "secrets").stat().st_mode & 0o777 == 0o700


def test_without_a_terminal_or_a_word_beforehand_nothing_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    confirm("s", "Sure?", yes=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("s\n"))
    with pytest.raises(InputError, match="YES=1"):
        confirm("s", "Sure?", yes=False)
