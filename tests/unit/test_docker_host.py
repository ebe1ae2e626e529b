"""Compose as it is called, and containers as they are read. The Compose here is a stand-in that tells its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.docker_host import address, compose, condition, connect, containers, started
from stack.errors import InputError, StackError
from unit import fake_docker


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rendered tree beside a docker-compose that prints its folder, arguments and environment."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / ".env").write_text("# the stack's own\nSTATE_DIR='/planned'\nNGINX_IMAGE=nginx:1.2.3\n")
    put_compose(tmp_path, 'pwd; echo "$@"; env')
    monkeypatch.setattr("stack.docker_host.sysconfig.get_path", lambda _: str(tmp_path))
    return folder


def put_compose(folder: Path, script: str) -> None:
    (folder / "docker-compose").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker-compose").chmod(0o755)


def test_compose_runs_in_the_tree_with_its_arguments(tree: Path) -> None:
    where, arguments, *_ = compose(tree, "up", "--detach").splitlines()
    assert (where, arguments) == (str(tree), "up --detach")


def test_the_callers_environment_cannot_move_the_stack(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIR", "NGINX_IMAGE", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.setenv(name, "stray")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    printed = compose(tree, "config").splitlines()
    assert "DOCKER_HOST=unix:///run/other.sock" in printed
    assert [line for line in printed if line.endswith("=stray")] == []


def test_a_compose_that_fails_is_told_with_its_last_lines(tree: Path, tmp_path: Path) -> None:
    put_compose(tmp_path, "seq 100 >&2; echo 'no such image' >&2; exit 17")
    with pytest.raises(StackError, match=r"(?s)docker-compose up.*failed \(17\).*no such image") as error:
        compose(tree, "up")
    assert "\n  50\n" not in str(error.value)


def test_a_compose_that_is_missing_is_told_how_to_get_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "docker-compose").unlink()
    with pytest.raises(StackError, match=r"docker-compose is missing: `scripts/setup\.sh venv`"):
        compose(tree, "up")


def test_an_engine_that_does_not_answer_is_bad_input_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(InputError, match="is it running"):
        connect()


def test_containers_of_a_stack_are_known_by_service_and_others_are_not_seen() -> None:
    mine, other = fake_docker.container("nginx"), fake_docker.container("nginx", project="another")
    assert containers(fake_docker.engine(other, mine), "vllm-onprem") == {"nginx": mine}


@pytest.mark.parametrize(
    ("status", "health", "said"),
    [
        ("running", "healthy", "healthy"),
        ("running", "starting", "starting"),
        ("running", None, "running"),
        ("exited", "healthy", "exited"),
        ("restarting", "unhealthy", "restarting"),
    ],
)
def test_health_counts_only_while_a_container_runs(status: str, health: str | None, said: str) -> None:
    assert condition(fake_docker.container(status=status, health=health)) == said


def test_a_container_has_an_address_in_its_own_stacks_networks() -> None:
    it = fake_docker.container(
        addresses={"vllm-onprem_inner": "172.18.0.3", "vllm-onprem_edge": "", "other": "10.0.0.1"}
    )
    assert [address(it, network) for network in ("inner", "edge", "other")] == ["172.18.0.3", None, None]


def test_a_restart_or_another_container_shows_as_a_difference() -> None:
    before, after = fake_docker.container(), fake_docker.container()
    assert started({"nginx": before}) == started({"nginx": after})
    after.attrs["State"]["StartedAt"] = "2025-01-02T00:00:00Z"
    assert started({"nginx": before}) != started({"nginx": after})
