"""Images into archives and out of them: what is loaded, what is refused first, and what an engine's error becomes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from stack.errors import InputError, StackError
from stack.images.archive import Archived, ArchiveList, read_list, sums_of, write
from stack.images.carry import load, save
from stack.images.choice import Chosen, Named

A, B = f"sha256:{1:064x}", f"sha256:{2:064x}"
LISTED = ArchiveList(
    built=False,
    images={
        "nginx": Archived(id=A, name="library/nginx:1.2.3", digest=None, size=10),
        "haproxy": Archived(id=B, name="library/haproxy:1.2.3", digest=None, size=10),
    },
)


def saved() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    return buffer.getvalue()


class Engine:
    """An engine that holds some images and takes archives. Its answers are constructed."""

    def __init__(self, *held: str, brings: Iterable[str] = (), error: str = "", root: str = "/nowhere") -> None:
        self.held = {name: image(name) for name in held}
        self.brings = tuple(brings)
        self.error = error
        self.received = b""
        self.asked: list[list[str]] = []
        self.images = SimpleNamespace(get=self.get)
        self.api = SimpleNamespace(
            load_image=self.load, base_url="http+docker://localhost", api_version="1.41", get=self.save
        )
        self.info = lambda: {"DockerRootDir": root}

    def get(self, reference: str) -> Any:
        if reference not in self.held:
            raise docker.errors.ImageNotFound(reference)
        return self.held[reference]

    def load(self, data: Iterator[bytes]) -> Iterator[dict[str, str]]:
        self.received = b"".join(data)
        self.held |= {name: image(name) for name in self.brings}
        yield {"error": self.error} if self.error else {"stream": "Loaded image"}

    def save(self, url: str, *, params: dict[str, list[str]], **_: object) -> Any:
        self.asked.append(params["names"])
        return nullcontext(SimpleNamespace(status_code=200, iter_content=lambda _: iter([saved()])))


def image(name: str, *tags: str) -> Any:
    made = SimpleNamespace(id=name, tags=list(tags), attrs={"Size": 10})
    made.tag = lambda repository, tag: made.tags.append(f"{repository}:{tag}")
    return made


def loaded(engine: Engine, path: Path) -> list[str]:
    return load(path, {A, B}, lambda _: None, cast(docker.DockerClient, engine))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "images.tar"
    write(path, LISTED, [saved()], lambda _: None)
    return path


def test_the_whole_archive_is_what_the_engine_gets(path: Path) -> None:
    engine = Engine(A, brings=[B])
    assert loaded(engine, path) == [B]
    assert engine.received == path.read_bytes()


def test_an_archive_whose_images_are_here_is_not_even_read(path: Path) -> None:
    sums_of(path).unlink()
    assert loaded(Engine(A, B), path) == []


def test_a_wrong_checksum_keeps_the_engine_as_it_is(path: Path) -> None:
    sums_of(path).write_text("0" * 64)
    engine = Engine(brings=[A, B])
    with pytest.raises(InputError, match="Nothing was loaded"):
        loaded(engine, path)
    assert (engine.received, engine.held) == (b"", {})


def test_too_little_room_is_told_before_anything_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    sums_of(path).unlink()
    engine = Engine(brings=[A, B], root=str(path.parent))
    with pytest.raises(StackError, match=r"loading .*images\.tar needs .* GB free at"):
        loaded(engine, path)
    assert engine.received == b""


@pytest.mark.parametrize(
    ("error", "told"),
    [("write /layer.tar: no space left on device", "no space left on device"), ("", "image store .* another kind")],
)
def test_what_the_engine_did_not_take_is_named_with_the_reason(path: Path, error: str, told: str) -> None:
    with pytest.raises(StackError, match=rf"1 of 2 images are missing \({B}\): .*{told}"):
        loaded(Engine(brings=[A], error=error), path)


def test_images_are_saved_under_a_tag_each_once(tmp_path: Path) -> None:
    engine = Engine()
    tagged, untagged = image(A, "other:1", "mirror/library/nginx:1.2.3"), image(B)
    engine.held = {"nginx@x": tagged, "haproxy@x": untagged, "same@x": tagged}
    pinned = {role: Named(f"library/{role}:1.2.3", "sha256:" + "ab" * 32) for role in ("nginx", "haproxy")}
    pinned["same"] = pinned["nginx"]
    chosen = Chosen({role: f"{role}@x" for role in pinned}, pinned, built=False)
    save(tmp_path / "new/images.tar", chosen, lambda _: None, cast(docker.DockerClient, engine))
    assert engine.asked == [["library/haproxy:1.2.3", "mirror/library/nginx:1.2.3"]]
    found = read_list(tmp_path / "new/images.tar").images
    assert {role: entry.id for role, entry in found.items()} == {"nginx": A, "haproxy": B, "same": A}
    assert {entry.digest for entry in found.values()} == {"sha256:" + "ab" * 32}


def test_a_disk_without_room_is_told_before_an_archive_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    engine = Engine(A)
    chosen = Chosen({"nginx": A}, {"nginx": Named("library/nginx:1.2.3", None)}, built=False)
    with pytest.raises(StackError, match=r"saving images to .* needs"):
        save(tmp_path / "images.tar", chosen, lambda _: None, cast(docker.DockerClient, engine))
    assert list(tmp_path.iterdir()) == []
