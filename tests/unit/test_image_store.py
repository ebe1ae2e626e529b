"""Images made present: only what is missing, by digest where there is one, and a failure that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from stack.errors import StackError
from stack.image_store import ensure
from stack.images import load_pins, references
from stacks import ROOT

A, B = "registry.example.org/a:1.2.3", "registry.example.org/b:1.2.3"
DIGEST = "sha256:" + "ab" * 32


class Engine:
    """An engine that holds some images and can pull others. Its answers are constructed."""

    def __init__(self, *held: str, refuses: str = "") -> None:
        self.held = set(held)
        self.refuses = refuses
        self.pulled: list[tuple[str, str]] = []
        self.tagged: list[tuple[str, str, str]] = []
        self.images = SimpleNamespace(get=self.get)
        self.api = SimpleNamespace(pull=self.pull, tag=lambda *names: self.tagged.append(names))

    def get(self, reference: str) -> None:
        if reference not in self.held:
            raise docker.errors.ImageNotFound(reference)

    def pull(self, repository: str, *, tag: str, **_: object) -> Iterator[dict[str, Any]]:
        self.pulled.append((repository, tag))
        yield {"id": tag, "status": f"Pulling from {repository}"}
        yield {"id": "layer", "status": "Pull complete"}
        if self.refuses and repository.endswith(self.refuses):
            yield {"error": "manifest unknown"}


def made(engine: Engine, *refs: str) -> list[str]:
    roles = {str(number): reference for number, reference in enumerate(refs)}
    return ensure(roles, "registry", ROOT, lambda _: None, cast(docker.DockerClient, engine))


def test_only_what_is_missing_is_pulled_and_each_once() -> None:
    engine = Engine(A)
    assert made(engine, A, B, B) == [B]
    assert engine.pulled == [("registry.example.org/b", "1.2.3")]


def test_nothing_is_asked_for_when_everything_is_there() -> None:
    engine = Engine(A, B)
    assert made(engine, A, B) == []
    assert engine.pulled == []


def test_a_registry_with_a_port_is_not_taken_for_a_tag() -> None:
    engine = Engine()
    made(engine, "localhost:5000/mirror/a:1.2.3")
    assert engine.pulled == [("localhost:5000/mirror/a", "1.2.3")]


def test_a_digest_is_what_is_pulled_and_the_tag_is_shown_for_it() -> None:
    engine = Engine()
    made(engine, f"{A}@{DIGEST}")
    assert engine.pulled == [("registry.example.org/a", DIGEST)]
    assert engine.tagged == [(f"registry.example.org/a@{DIGEST}", "registry.example.org/a", "1.2.3")]


def test_an_image_that_cannot_be_pulled_is_named_with_what_to_do() -> None:
    with pytest.raises(
        StackError, match=r"(?s)registry\.example\.org/b:1\.2\.3 could not be pulled: manifest unknown.*mirror"
    ):
        made(Engine(refuses="/b"), A, B)


def test_an_image_that_the_folders_do_not_build_any_more_is_not_built_under_its_old_name() -> None:
    refs = references(ROOT, load_pins(ROOT), "build", "cpu")
    refs["nginx"] = refs["nginx"][:-12] + "0" * 12
    engine = Engine(*(reference for role, reference in refs.items() if role != "nginx"))
    with pytest.raises(StackError, match="render again"):
        ensure(refs, "build", ROOT, lambda _: None, cast(docker.DockerClient, engine))
