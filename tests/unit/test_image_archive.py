"""Archives of images: what they hold is known before anything is loaded, and a wrong one is refused."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stack.config.conflicts import conflicts
from stack.config.schema import Images
from stack.errors import InputError, StackError
from stack.images import archive
from stack.images.archive import ArchiveList, check_sum, read_list, sums_of, write
from stack.images.choice import built_references, choose
from stack.images.lock import LOCK
from stack.images.pins import Device, load_pins
from stacks import ROOT

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def listed(device: Device = "cpu", *, built: bool = False, **changed: dict[str, Any] | None) -> ArchiveList:
    """What an archive of the images that this checkout runs would say; IDs are constructed."""
    names = {role: pin.reference for role, pin in load_pins(ROOT).of(device).items()}
    names = built_references(ROOT, load_pins(ROOT), device) if built else names
    images: dict[str, Any] = {
        role: {"id": f"sha256:{number:064x}", "name": name, "digest": None, "size": 1000}
        for number, (role, name) in enumerate(sorted(names.items()))
    }
    for role, change in changed.items():
        images[role] = {**images[role], **change} if change else images.pop(role) and None
    return ArchiveList.model_validate({"built": built, "images": {r: i for r, i in images.items() if i}})


NAMES = ["layer-0", "layer-1", "manifest.json"]


def saved() -> Iterable[bytes]:
    """What an engine streams: a tar archive, in pieces."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in NAMES:
            info = tarfile.TarInfo(name)
            info.size = 1000
            tar.addfile(info, io.BytesIO(b"x" * 1000))
    data = buffer.getvalue()
    return (data[start : start + 700] for start in range(0, len(data), 700))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "images.tar"
    write(path, listed(), saved(), lambda _: None)
    return path


def chosen(path: Path, device: Device = "cpu", root: Path = ROOT) -> dict[str, str]:
    return choose(root, Images(source="archive", archive=str(path)), "archive", device).references


def test_an_archive_is_a_tar_with_the_list_in_front_and_all_that_the_engine_wrote(path: Path) -> None:
    with tarfile.open(path) as tar:
        assert tar.getnames() == [archive.LIST, *NAMES]
    assert read_list(path) == listed()


def test_the_checksum_file_is_as_sha256sum_writes_it(path: Path) -> None:
    total = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sums_of(path).read_text() == f"{total}  images.tar\n"
    check_sum(path, lambda _: None)


@pytest.mark.parametrize("damage", ["cut off", "changed", "other sums", "no sums", "empty sums"])
def test_a_wrong_checksum_is_refused(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(data[:-600])
    elif damage == "changed":
        path.write_bytes(data[:-600] + b"x" + data[-599:])
    elif damage == "no sums":
        sums_of(path).unlink()
    else:
        sums_of(path).write_text("" if damage == "empty sums" else f"{'0' * 64}  images.tar\n")
    with pytest.raises(InputError, match="copy both"):
        check_sum(path, lambda _: None)


@pytest.mark.parametrize("content", [b"", b"x" * 2000, "cut", "another tar", "folder", "missing"])
def test_what_is_no_archive_of_images_is_told_as_such(path: Path, content: bytes | str) -> None:
    data = path.read_bytes()
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        path.write_bytes(data[:600])
    elif content == "another tar":
        path.write_bytes(b"".join(saved()))
    elif content == "folder":
        path.mkdir()
    with pytest.raises(InputError, match=r"images\.tar: .*copy it"):
        read_list(path)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"images": {"nginx": {"id": "nginx", "name": "x:1.2.3", "digest": None, "size": 1}}}, {"x": 1}],
)
def test_a_list_of_another_kind_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    document = json.dumps({**listed().model_dump(), **change}).encode()
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        info = tarfile.TarInfo(archive.LIST)
        info.size = len(document)
        tar.addfile(info, io.BytesIO(document))
    with pytest.raises(InputError, match="not an archive of `make images-save`"):
        read_list(tmp_path / "images.tar")


def test_a_disk_that_is_full_leaves_the_archive_that_was_there(path: Path) -> None:
    before = path.read_bytes()

    def full() -> Iterable[bytes]:
        yield b"x" * 512
        raise OSError(28, "No space left on device")

    with pytest.raises(StackError, match="the disk is full"):
        write(path, listed(), full(), lambda _: None)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["images.tar", "images.tar.sha256"]


@pytest.mark.parametrize("size", [0, 700, 2800])
def test_an_engine_that_breaks_off_while_saving_leaves_no_archive(tmp_path: Path, size: int) -> None:
    stream = [b"".join(saved())[:size], b'{"errorDetail":{"message":"constructed"}}']
    with pytest.raises(StackError, match="Docker broke off"):
        write(tmp_path / "images.tar", listed(), stream, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_built_images_is_whole_without_what_nothing_builds(path: Path) -> None:
    write(path, listed(built=True), saved(), lambda _: None)
    assert chosen(path).keys() == listed(built=True).images.keys()
    assert "grafana" not in chosen(path)


def test_an_archive_from_a_stack_without_grafana_is_for_stacks_without_it(path: Path) -> None:
    write(path, listed(grafana=None), saved(), lambda _: None)
    with pytest.raises(InputError, match=r"grafana: not in the archive; .*, or turn grafana off"):
        chosen(path)
    settings = Images(source="archive", archive=str(path))
    assert choose(ROOT, settings, "archive", "cpu", frozenset({"grafana"})).references == {
        role: image.id for role, image in listed(grafana=None).images.items()
    }


def test_image_ids_are_what_an_archive_renders(path: Path) -> None:
    assert chosen(path) == {role: image.id for role, image in listed().images.items()}


@pytest.mark.parametrize("built", [True, False])
def test_who_made_the_images_goes_along_with_them(path: Path, built: bool) -> None:
    write(path, listed(built=built), saved(), lambda _: None)
    assert choose(ROOT, Images(source="archive", archive=str(path)), "archive", "cpu").built is built


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (listed(nginx=None), "nginx: not in the archive; this checkout runs library/nginx:"),
        (listed(nginx={"name": "library/nginx:1.0.0"}), "nginx: the archive holds library/nginx:1.0.0, this checkout"),
        (listed("cuda"), "vllm: the archive holds vllm/vllm-openai:v"),
        (listed(built=True, haproxy={"name": "vllm-onprem/debian13:13-0"}), "haproxy: the archive holds vllm-onprem/"),
    ],
)
def test_an_archive_of_other_images_than_this_checkout_runs_is_refused(
    path: Path, contents: ArchiveList, problem: str
) -> None:
    write(path, contents, saved(), lambda _: None)
    with pytest.raises(InputError) as error:
        chosen(path)
    assert [str(found) for found in error.value.problems if str(found).startswith(problem)], str(error.value)
    assert "make images-save" in str(error.value)


def test_built_images_are_not_taken_for_a_gpu_host(path: Path) -> None:
    write(path, listed(built=True), saved(), lambda _: None)
    with pytest.raises(InputError, match="which is only pulled"):
        chosen(path, "cuda")


@pytest.mark.parametrize(("locked", "taken"), [(DIGEST, True), (None, True), (OTHER, False)])
def test_a_digest_that_is_not_the_locked_one_is_refused(
    path: Path, tmp_path: Path, locked: str | None, taken: bool
) -> None:
    root = tmp_path / "project"
    (root / "compose").mkdir(parents=True)
    (root / "compose/images.yaml").write_bytes((ROOT / "compose/images.yaml").read_bytes())
    (root / LOCK).write_text(json.dumps({load_pins(ROOT).roles["nginx"].reference: locked}))
    write(path, listed(nginx={"digest": DIGEST}), saved(), lambda _: None)
    if taken:
        assert set(chosen(path, root=root)) == set(listed().images)
    else:
        with pytest.raises(InputError, match=f"holds {DIGEST}, the lock says {OTHER}"):
            chosen(path, root=root)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"source": "archive"}, "name the file"),
        ({"source": "registry", "archive": "images.tar"}, "images.source is 'registry'"),
        ({"archive": "images.tar"}, "images.source is 'registry'"),
    ],
)
def test_archive_and_source_go_together(settings: dict[str, str], what: str) -> None:
    (problem,) = conflicts({"device": "cpu", "images": settings})
    assert problem.where == "images.archive"
    assert what in problem.what
