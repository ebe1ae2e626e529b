"""Images for real: a registry on loopback that is pulled from, moved, locked, guarded and killed, and archives.

The commands run in a copy of the project, as they write its images.lock.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
import yaml

from integration.conftest import ROOT, Done
from integration.registry import Registry, Relay, program
from stack.config.load import load_config
from stack.docker_host import compose, connect
from stack.images.choice import pulled_references
from stack.images.lock import LOCK, read_lock
from stack.images.pins import load_pins

NGINX = load_pins(ROOT).roles["nginx"].reference
VLLM = load_pins(ROOT).vllm["cpu"].reference
EXAMPLE = ROOT / "compose/examples/cpu.yaml"
# what the example does not ask for is not pulled: log shipping
UNWANTED = load_config(EXAMPLE, EXAMPLE.name).images_unwanted
PINNED = sorted(pin.reference for pin in load_pins(ROOT).less(UNWANTED).of("cpu").values())
# constructed: a password for this test alone, and what bcrypt made of it
USER, PASSWORD = "reader", "constructed-password"
HTPASSWD = "reader:$2b$04$nU.QVywlJL8D9qtsJdxDEe9D6/0skdc3mDpgRyLPVSHlnxutkZ6He\n"
BIG = 6_000_000


@dataclass
class Project:
    """A copy of the project whose stack takes its images as told, on an engine that has none of them."""

    folder: Path
    client: docker.DockerClient
    hosts: set[str]
    environment: dict[str, str] = field(default_factory=dict)

    def stack(self, **images: str) -> Path:
        """A stack file with these settings of images."""
        document = yaml.safe_load(EXAMPLE.read_text())
        path = self.folder / "stack.yaml"
        path.write_text(yaml.safe_dump({**document, "name": "vllm-onprem-images", "images": images}))
        return path

    def mirrored(self, host: str, folder: str = "mirror") -> Path:
        self.hosts.add(host)
        return self.stack(source="registry", mirror=f"{host}/{folder}")

    def run(self, script: str, stack: Path, *arguments: str) -> Done:
        command = [sys.executable, str(self.folder / f"scripts/{script}.py"), str(stack), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def references(self, stack: Path) -> dict[str, str]:
        """role -> image, after making all of them present."""
        done = self.run("images", stack, "--json")
        assert done.code == 0, done.err
        found: dict[str, str] = json.loads(done.out)
        return found

    def ids(self, references: dict[str, str]) -> dict[str, str]:
        return {role: str(self.client.images.get(reference).id) for role, reference in references.items()}

    def pulled(self, registry: Registry) -> dict[str, str]:
        """role -> id of what the stack has from a registry's mirror."""
        pins = load_pins(self.folder).less(UNWANTED).of("cpu")
        return self.ids(pulled_references(pins, f"{registry.host}/mirror"))

    @property
    def lock(self) -> dict[str, str | None]:
        return {name: digest for name, digest in read_lock(self.folder).items() if name in PINNED}

    def write_lock(self, lock: dict[str, str] | dict[str, None]) -> None:
        (self.folder / LOCK).write_text(yaml.safe_dump(lock))

    def forget_images(self) -> None:
        """Remove from the engine whatever came by one of the test's own registries."""
        for image in self.client.api.images():
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            if any(name.split("/", 1)[0] in self.hosts for name in names):
                self.client.images.remove(image["Id"], force=True)


@dataclass(frozen=True)
class Filled:
    """A registry's folder that is only copied from. digests: reference -> digest of what its mirror/ holds."""

    program: Path
    folder: Path
    digests: dict[str, str]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connect()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, client: docker.DockerClient) -> Filled:
    """Every image of the CPU stack, of random bytes."""
    registry = Registry(program(tmp_path_factory.mktemp("docker-registry")), tmp_path_factory.mktemp("filled"))
    registry.start()
    try:
        sizes = {name: BIG if name == VLLM else 1000 for name in PINNED}
        digests = {name: registry.push(client, f"mirror/{name}", size) for name, size in sizes.items()}
    finally:
        registry.kill()
    return Filled(registry.program, registry.folder, digests)


@pytest.fixture
def pushed(filled: Filled) -> dict[str, str]:
    return filled.digests


@pytest.fixture
def registry(filled: Filled, tmp_path: Path) -> Iterator[Registry]:
    """A running registry that holds the images."""
    shutil.copytree(filled.folder, tmp_path / "registry")
    started = Registry(filled.program, tmp_path / "registry")
    started.start()
    yield started
    started.kill()


@pytest.fixture
def project(tmp_path: Path, client: docker.DockerClient, registry: Registry) -> Iterator[Project]:
    folder = tmp_path / "project"
    for name in ("scripts", "compose", "templates", "nginx"):
        shutil.copytree(ROOT / name, folder / name)
    (tmp_path / "docker").mkdir()
    made = Project(folder, client, {registry.host}, {"DOCKER_CONFIG": str(tmp_path / "docker")})
    made.write_lock(dict.fromkeys(PINNED))
    yield made
    made.forget_images()


def test_a_mirror_is_pulled_by_digests_that_the_first_use_records(
    project: Project, registry: Registry, pushed: dict[str, str]
) -> None:
    stack = project.mirrored(registry.host)
    first = project.run("images", stack)
    assert first.code == 0, first.err
    assert project.lock == pushed
    assert all(f"{name} is {digest}, recorded at its first use" in first.err for name, digest in pushed.items())
    wanted = {f"{registry.host}/mirror/{name}@{digest}" for name, digest in pushed.items()}
    assert {line.split()[1] for line in first.out.splitlines()} == wanted
    assert all(reference.rpartition("@")[0] in project.client.images.get(reference).tags for reference in wanted)
    # what is there is not asked for again
    registry.kill()
    again = project.run("images", stack)
    assert (again.code, again.out) == (0, first.out), again.err


def test_a_tag_that_moved_is_said_and_only_make_lock_follows_it(
    project: Project, registry: Registry, pushed: dict[str, str]
) -> None:
    stack = project.mirrored(registry.host)
    before = project.references(stack)
    project.forget_images()
    moved = registry.push(project.client, f"mirror/{NGINX}")
    pulled = project.run("images", stack, "--json")
    assert (pulled.code, json.loads(pulled.out)) == (0, before), pulled.err
    assert f"{NGINX} is {moved} at the registry now" in pulled.err
    assert project.lock == pushed
    locked = project.run("lock_images", stack)
    # vLLM's image for GPUs is pinned too, and this mirror does not hold it
    assert locked.code == 1
    assert "vllm/vllm-openai:" in locked.err
    lines = {line.split()[0]: line for line in locked.out.splitlines()}
    assert f"CHANGED, was {pushed[NGINX]}" in lines[NGINX]
    assert all("unchanged" in lines[name] for name in PINNED if name != NGINX)
    assert project.lock == {**pushed, NGINX: moved}
    after = project.references(stack)
    assert {role for role in after if after[role] != before[role]} == {"nginx"}


def test_a_locked_image_that_the_registry_does_not_hold_is_not_replaced_by_another(
    project: Project, registry: Registry, pushed: dict[str, str]
) -> None:
    gone = "sha256:" + "0" * 64  # constructed
    project.write_lock({**pushed, NGINX: gone})
    done = project.run("images", project.mirrored(registry.host))
    assert done.code == 1
    assert f"{NGINX}@{gone} could not be pulled" in done.err
    assert f"{NGINX} is {pushed[NGINX]} at the registry now" in done.err
    assert project.lock[NGINX] == gone


def test_an_image_that_the_registry_does_not_hold_is_named_and_changes_nothing(
    project: Project, registry: Registry
) -> None:
    _refused(
        project, project.mirrored(registry.host, "another"), f"{registry.host}/another/{NGINX}", "does not hold it"
    )


def test_a_registry_that_is_down_is_named_and_changes_nothing(project: Project, registry: Registry) -> None:
    registry.kill()
    stack = project.mirrored(registry.host)
    _refused(project, stack, f"{registry.host}/mirror/{NGINX}", "connection refused")


def _refused(project: Project, stack: Path, image: str, why: str) -> None:
    for script in ("images", "lock_images"):
        done = project.run(script, stack)
        assert done.code == 1
        assert f"{image} could not be resolved" in done.err
        assert why in done.err
        assert project.lock == dict.fromkeys(PINNED)


def test_credentials_come_from_dockers_own_store(project: Project, registry: Registry, pushed: dict[str, str]) -> None:
    guarded = Registry(registry.program, registry.folder, HTPASSWD)
    guarded.start()
    try:
        stack = project.mirrored(guarded.host)
        refused = project.run("images", stack)
        assert refused.code == 1
        assert f"docker login {guarded.host}" in refused.err
        for store in ("auths", "credHelpers", "credsStore"):
            project.forget_images()
            project.write_lock(dict.fromkeys(PINNED))
            _log_in(project, guarded.host, store)
            assert len(project.references(stack)) == len(PINNED), store
            assert project.lock == pushed
    finally:
        guarded.kill()


def _log_in(project: Project, host: str, store: str) -> None:
    """What `docker login` leaves behind, with and without a credential helper."""
    folder = Path(project.environment["DOCKER_CONFIG"])
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    settings = {
        "auths": {"auths": {host: {"auth": login}}},
        "credHelpers": {"credHelpers": {host: "constructed"}},
        "credsStore": {"credsStore": "constructed"},
    }
    (folder / "config.json").write_text(json.dumps(settings[store]))
    helper = folder / "docker-credential-constructed"
    answer = json.dumps({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    project.environment["PATH"] = f"{folder}:{os.environ['PATH']}"


def test_a_registry_killed_in_the_middle_of_a_pull_is_told_and_the_same_command_finishes(
    project: Project, registry: Registry, pushed: dict[str, str]
) -> None:
    relay = Relay(registry)
    relay.limit, relay.then = BIG // 2, registry.kill
    stack = project.mirrored(relay.host)
    try:
        cut = project.run("images", stack)
        assert relay.passed > BIG // 2
        assert cut.code == 1
        assert f"{VLLM}@{pushed[VLLM]} could not be pulled" in cut.err
        with pytest.raises(docker.errors.ImageNotFound):
            project.client.images.get(f"{relay.host}/mirror/{VLLM}@{pushed[VLLM]}")
        registry.start()
        again = project.references(stack)
        assert again["vllm"] == f"{relay.host}/mirror/{VLLM}@{pushed[VLLM]}"
    finally:
        relay.close()


def test_an_archive_carries_images_and_a_damaged_one_is_refused_before_anything_is_loaded(
    project: Project, registry: Registry, tmp_path: Path
) -> None:
    stack = project.mirrored(registry.host)
    archive = tmp_path / "images.tar"
    saved = project.run("images", stack, "save", "--archive", str(archive))
    assert saved.code == 0, saved.err
    ids = project.pulled(registry)
    check = ["sha256sum", "--check", "--quiet", f"{archive.name}.sha256"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    assert project.run("images", stack, "load").code == 2  # this stack has no archive

    # another host: no registry, no images
    registry.kill()
    project.forget_images()
    stack = project.stack(source="archive", archive=str(archive))
    whole = archive.read_bytes()
    for damaged in (whole[:-2048], whole[:3_000_000] + b"constructed" + whole[3_000_011:]):
        archive.write_bytes(damaged)
        refused = project.run("images", stack, "load")
        assert refused.code == 2
        assert "Nothing was loaded" in refused.err
    assert _held(project, ids) == set()

    archive.write_bytes(whole)
    assert project.references(stack) == ids
    assert _held(project, ids) == set(ids.values())
    assert all(project.client.images.get(image).tags for image in ids.values())
    again = project.run("images", stack, "load")
    assert again.code == 0
    assert "checksum" not in again.err  # a no-op, not 10 GB read

    # what runs is the ID: Compose reads the rendered tree
    assert project.run("render", stack).code == 0
    tree = project.folder / "build/localhost"
    services = yaml.safe_load(compose(tree, "config"))["services"]
    assert services["nginx"]["image"] == ids["nginx"]
    assert {service["image"] for service in services.values()} == set(ids.values())

    # and it can be carried on from there, but not over itself
    assert project.run("images", stack, "save", "--archive", str(archive)).code == 2
    onwards = tmp_path / "onwards.tar"
    assert project.run("images", stack, "save", "--archive", str(onwards)).code == 0
    project.forget_images()
    assert project.references(project.stack(source="archive", archive=str(onwards))) == ids


def _held(project: Project, ids: dict[str, str]) -> set[str]:
    return {image["Id"] for image in project.client.api.images(all=True)} & set(ids.values())


def test_an_archive_of_which_a_part_is_there_is_loaded_for_the_rest(
    project: Project, registry: Registry, tmp_path: Path
) -> None:
    stack = project.mirrored(registry.host)
    archive = tmp_path / "images.tar"
    assert project.run("images", stack, "save", "--archive", str(archive)).code == 0
    ids = project.pulled(registry)
    project.client.images.remove(ids["haproxy"], force=True)
    done = project.run("images", project.stack(source="archive", archive=str(archive)), "load")
    assert done.code == 0, done.err
    assert "1 images loaded" in done.err
    assert _held(project, ids) == set(ids.values())
