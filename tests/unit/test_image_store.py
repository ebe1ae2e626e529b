"""Images made present: only what is missing, by digest where there is one, and a failure that says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
import yaml

from stack.config.schema import Images
from stack.errors import StackError
from stack.images.choice import built_references
from stack.images.lock import LOCK, read_lock
from stack.images.pins import load_pins
from stack.images.registry import explained
from stack.images.store import ensure, provide
from stacks import ROOT

A, B = "registry.example.org/a:1.2.3", "registry.example.org/b:1.2.3"
DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
CAUSE = 'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host'


class Engine:
    """An engine that holds some images and can pull others. Its answers are constructed."""

    def __init__(self, *held: str, refuses: str = "", digest: str | None = DIGEST) -> None:
        self.held = set(held)
        self.refuses = refuses
        self.digest = digest
        self.asked: list[str] = []
        self.pulled: list[tuple[str, str]] = []
        self.tagged: list[tuple[str, str, str]] = []
        self.images = SimpleNamespace(get=self.get)
        self.api = SimpleNamespace(
            pull=self.pull, tag=lambda *names: self.tagged.append(names), inspect_distribution=self.inspect
        )

    def get(self, reference: str) -> None:
        if reference not in self.held:
            raise docker.errors.ImageNotFound(reference)

    def inspect(self, reference: str) -> dict[str, Any]:
        self.asked.append(reference)
        if self.digest is None:
            raise docker.errors.APIError("500 Server Error", explanation=CAUSE)
        return {"Descriptor": {"digest": self.digest}}

    def pull(self, repository: str, *, tag: str, **_: object) -> Iterator[dict[str, Any]]:
        self.pulled.append((repository, tag))
        yield {"id": tag, "status": f"Pulling from {repository}"}
        yield {"id": "layer", "status": "Pull complete"}
        if self.refuses and repository.endswith(self.refuses):
            yield {"error": "manifest unknown"}


def made(engine: Engine, *refs: str) -> list[str]:
    roles = {str(number): reference for number, reference in enumerate(refs)}
    return ensure(roles, "registry", ROOT, lambda _: None, cast(docker.DockerClient, engine))


def provided(engine: Engine, root: Path, mirror: str | None = None, *unwanted: str) -> list[str]:
    """What is said while the CPU images are pulled."""
    said: list[str] = []
    client = cast(docker.DockerClient, engine)
    provide(root, Images(mirror=mirror), "registry", "cpu", said.append, client, frozenset(unwanted))
    return said


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of compose/, to be changed."""
    shutil.copytree(ROOT / "compose", tmp_path / "compose")
    (tmp_path / LOCK).write_text("{}\n")
    return tmp_path


def test_only_what_is_missing_is_pulled_and_each_once() -> None:
    engine = Engine(A)
    assert made(engine, A, B, B) == [B]
    assert engine.pulled == [("registry.example.org/b", "1.2.3")]


def test_what_the_stack_file_turns_off_is_neither_asked_for_nor_pulled(project: Path) -> None:
    engine, without = Engine(), Engine()
    provided(engine, project)
    (project / LOCK).write_text("{}\n")
    provided(without, project, None, "grafana")
    assert set(engine.asked) - set(without.asked) == {load_pins(project).roles["grafana"].reference}
    assert len(engine.pulled) - len(without.pulled) == 1


def test_nothing_is_asked_for_when_everything_is_there() -> None:
    engine = Engine(A, B)
    assert made(engine, A, B) == []
    assert (engine.pulled, engine.asked) == ([], [])


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


def test_a_locked_image_that_is_gone_says_that_the_tag_is_another_one_now() -> None:
    with pytest.raises(StackError, match=f"(?s)manifest unknown.*{A} is {OTHER} at the registry now.*make lock"):
        made(Engine(refuses="/a", digest=OTHER), f"{A}@{DIGEST}")


def test_an_image_without_a_digest_gets_one_at_its_first_use_and_keeps_it(project: Path) -> None:
    said = provided(Engine(), project)
    lock = read_lock(project)
    cpu = {pin.reference for pin in load_pins(project).of("cpu").values()}
    assert lock == dict.fromkeys(sorted(cpu), DIGEST)
    assert all(any(f"{reference} is {DIGEST}, recorded" in line for line in said) for reference in cpu)
    engine = Engine(digest=OTHER)
    said = provided(engine, project)
    assert read_lock(project) == lock
    assert {wanted for _, wanted in engine.pulled} == {DIGEST}
    assert any(f"is {OTHER} at the registry now" in line for line in said)


def test_the_lock_is_the_same_with_and_without_a_mirror(project: Path) -> None:
    engine = Engine()
    provided(engine, project, "localhost:5000/mirror")
    assert "localhost:5000/mirror/library/nginx:1.31.3" in engine.asked
    assert "library/nginx:1.31.3" in read_lock(project)
    assert ("localhost:5000/mirror/library/nginx", DIGEST) in engine.pulled


def test_a_registry_that_does_not_answer_leaves_the_lock_and_the_engine_as_they_are(project: Path) -> None:
    engine = Engine(digest=None)
    with pytest.raises(StackError, match=r"(?s)library/nginx:1\.31\.3 could not be resolved.*no such host"):
        provided(engine, project)
    assert (read_lock(project), engine.pulled) == ({}, [])


def test_a_lock_that_cannot_be_written_is_said_before_anything_is_pulled(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("stack.images.lock._write", refuse)
    engine = Engine()
    with pytest.raises(StackError, match=r"images\.lock cannot be written \(Permission denied\)"):
        provided(engine, project)
    assert engine.pulled == []


def test_the_lock_says_who_writes_it_and_holds_what_it_held(project: Path) -> None:
    (project / LOCK).write_text(yaml.safe_dump({"library/nginx:1.31.3": OTHER, "other:1.0.0": None}))
    provided(Engine(), project)
    assert (project / LOCK).read_text().startswith("# Digest of each image")
    assert read_lock(project)["library/nginx:1.31.3"] == OTHER
    assert read_lock(project)["other:1.0.0"] is None
    assert [path.name for path in (project / "compose").glob(".*")] == []


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("manifest for x not found: manifest unknown: manifest unknown", "does not hold it"),
        ("Head http://r/v2/x/manifests/1: no basic auth credentials", "docker login registry.example.org:5000"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "docker login"),
        ("Credentials store error: StoreError('docker-credential-x not installed')", "credential helper"),
        ("toomanyrequests: You have reached your pull rate limit", "images.mirror"),
        ("write /var/lib/docker/tmp/x: no space left on device", "docker system df"),
        ("x509: certificate signed by unknown authority", "/etc/docker/certs.d/registry.example.org:5000/ca.crt"),
        ("http: server gave HTTP response to HTTPS client", "certs.d"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "reaches registry.example.org:5000"),
        ("unexpected EOF", "reaches registry.example.org:5000"),
    ],
)
def test_what_a_registry_says_is_followed_by_what_to_do(said: str, advice: str) -> None:
    first, second = explained(said, "registry.example.org:5000/mirror/a:1.2.3").split("\n  ", 1)
    assert first == said
    assert advice in second


@pytest.mark.parametrize("reference", ["library/nginx:1.31.3", "nginx:1.31.3"])
def test_an_image_of_docker_hub_is_not_taken_for_a_host_of_its_own(reference: str) -> None:
    assert "reaches docker.io;" in explained("unexpected EOF", reference)


def test_an_image_that_the_folders_do_not_build_any_more_is_not_built_under_its_old_name() -> None:
    refs = built_references(ROOT, load_pins(ROOT), "cpu")
    refs["nginx"] = refs["nginx"][:-12] + "0" * 12
    engine = Engine(*(reference for role, reference in refs.items() if role != "nginx"))
    with pytest.raises(StackError, match="render again"):
        ensure(refs, "build", ROOT, lambda _: None, cast(docker.DockerClient, engine))
