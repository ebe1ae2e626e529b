"""Models from a tar archive: unpacked whole into their place, or refused before anything is written."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stack.errors import InputError, StackError
from stack.models.fetch import Outcome, ensure_models
from stack.models.toy import make_toy_model
from stack.yaml_input import parsed
from unit import given


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "toy"
    make_toy_model(folder)
    save_file({"model.norm.weight": np.zeros(2**17, dtype=np.float16)}, folder / "model.safetensors")  # packed often
    (folder / "pytorch_model.bin").write_bytes(b"x")
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "model.tar"


@pytest.fixture
def bring(archive: Path, tmp_path: Path) -> Callable[..., tuple[Path, list[Outcome]]]:
    """Where the archive's model is put, and what was done."""

    def call(sha256: str | None = None) -> tuple[Path, list[Outcome]]:
        source = {"archive": str(archive), "sha256": sha256}
        stack = given.config(given.toy(source=source), paths={"state": str(tmp_path / "state")})
        outcomes = ensure_models(stack, tmp_path, lambda _: None)
        return Path(given.plan(stack).engines[0].model_dir), outcomes

    return call


Bring = Callable[..., tuple[Path, list[Outcome]]]


def pack(archive: Path, folder: Path, name: str = "", kind: str = "") -> None:
    with tarfile.open(archive, f"w:{kind}") as tar:  # type: ignore[call-overload]
        tar.add(folder, arcname=name or ".")


def add(archive: Path, member: tarfile.TarInfo, content: bytes = b"") -> None:
    member.size = len(content)
    with tarfile.open(archive, "a") as tar:
        tar.addfile(member, io.BytesIO(content))


def models(tmp_path: Path) -> list[str]:
    return sorted(str(path) for path in (tmp_path / "state").rglob("*") if path.is_file() and path.name != "lock")


@pytest.mark.parametrize(("name", "kind"), [("", ""), ("srv/llama", "gz"), ("llama", "bz2")])
def test_a_model_is_unpacked_where_the_plan_mounts_it(
    toy: Path, archive: Path, bring: Bring, tmp_path: Path, name: str, kind: str
) -> None:
    pack(archive, toy, name, kind)
    folder, outcomes = bring()
    assert [outcome.what for outcome in outcomes] == ["fetched"]
    expected = {path.name: path.read_bytes() for path in toy.iterdir() if path.suffix != ".bin"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    entry = next(iter(parsed((tmp_path / "state/models.lock").read_text())["models"].values()))
    assert (entry["source"], entry["archive"]) == ("archive", str(archive))
    assert entry["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert set(entry["files"]) == set(expected)
    archive.unlink()
    assert bring()[1][0].what == "here", "the archive is not needed any more"


def test_the_checksum_of_the_stack_file_is_the_archives(toy: Path, archive: Path, bring: Bring, tmp_path: Path) -> None:
    pack(archive, toy)
    with pytest.raises(StackError, match=r"has SHA-256 \w+, source\.sha256 says 0000"):
        bring("0" * 64)
    assert models(tmp_path) == []
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert bring(found)[0].name == found


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_unpacked(
    toy: Path, archive: Path, bring: Bring, tmp_path: Path, name: str
) -> None:
    pack(archive, toy)
    add(archive, tarfile.TarInfo(name), b"{}")
    with pytest.raises(StackError, match="is no plain file inside the archive"):
        bring()
    assert models(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "is a link; pack the files themselves"),
        (tarfile.LNKTYPE, "is a link; pack the files themselves"),
        (tarfile.CHRTYPE, "is no plain file"),
        (tarfile.FIFOTYPE, "is no plain file"),
    ],
)
def test_links_and_devices_are_refused(
    toy: Path, archive: Path, bring: Bring, tmp_path: Path, kind: bytes, message: str
) -> None:
    pack(archive, toy)
    member = tarfile.TarInfo("vocab.json")
    member.type, member.linkname = kind, "/etc/passwd"
    add(archive, member)
    with pytest.raises(StackError, match=message):
        bring()
    assert models(tmp_path) == []


@pytest.mark.parametrize("kind", ["", "gz"])
def test_an_archive_that_was_cut_off_is_refused_and_unpacked_when_it_is_whole(
    toy: Path, archive: Path, bring: Bring, tmp_path: Path, kind: str
) -> None:
    pack(archive, toy, kind=kind)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(StackError, match="cannot be read as a tar archive"):
        bring()
    assert models(tmp_path) == []
    archive.write_bytes(content)
    assert bring()[0].is_dir()


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_what_is_no_archive_is_told_as_such(archive: Path, bring: Bring, content: bytes) -> None:
    archive.write_bytes(content)
    with pytest.raises(StackError, match="cannot be read as a tar archive"):
        bring()


def test_an_archive_without_a_model_is_told_as_such(archive: Path, bring: Bring, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/notes.txt").write_text("x")
    pack(archive, tmp_path / "x")
    with pytest.raises(StackError, match=r"holds no config\.json"):
        bring()


def test_an_archive_that_is_not_there_is_bad_input(bring: Bring) -> None:
    with pytest.raises(InputError, match=r"models\[0\]\.source\.archive: .*model\.tar: No such file"):
        bring()


def test_a_disk_that_fills_up_leaves_nothing_behind(
    toy: Path, archive: Path, bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(archive, toy)

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr("stack.models.fetch.Meter.add", lambda _, count: full(count))
        with pytest.raises(StackError, match=r"the disk is full; 0\.3 MiB"):
            bring()
    assert models(tmp_path) == []
    assert bring()[0].is_dir()


def test_what_a_killed_run_left_is_replaced(toy: Path, archive: Path, bring: Bring, tmp_path: Path) -> None:
    pack(archive, toy)
    folder, _ = bring()
    folder.rename(folder.with_name("unpinned.partial"))
    (folder.with_name("unpinned.partial") / "odd.json").write_text("{")
    assert not (bring()[0] / "odd.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["unpinned"]
