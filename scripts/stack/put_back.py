"""After a command that failed half-way: the stack as it was before, and a true word on what runs now."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from stack.apply import Before, bring_up, look, mark_proven
from stack.console import say
from stack.docker_host import PROJECT_LABEL, compose, containers
from stack.errors import StackError
from stack.inputs import Place
from stack.tree import compare, write_tree


def stop(place: Place, client: docker.DockerClient) -> None:
    """Stop and remove a stack's containers and networks, even where its files are gone or damaged."""
    try:
        compose(place.live, "down", "--remove-orphans")
    except (StackError, OSError) as error:
        say(f"the applied files are not usable ({str(error).splitlines()[0]}); going by Docker's labels")
        for part in containers(client, place.project).values():
            part.stop(timeout=None)
            part.remove()
        for network in client.networks.list(filters={"label": f"{PROJECT_LABEL}={place.project}"}):
            network.remove()


def put_back(
    project: str, live: Path, files: Mapping[str, bytes], before: Before, client: docker.DockerClient,
    drained_files: Callable[[frozenset[str]], Mapping[str, bytes]],
) -> str:  # fmt: skip
    """Undo what bring_up did with these files. Never raises but for an interrupt: says what state everything is in.

    drained_files: the previous tree with replicas drained.
    """
    try:
        return _put_back(project, live, files, before, client, drained_files)
    except (StackError, OSError, DockerException, requests.RequestException) as error:
        return (
            f"The previous stack could NOT be put back: {error}\n"
            "`make status` shows what runs; `make up` with the previous stack file repairs it."
        )


def _put_back(
    project: str, live: Path, files: Mapping[str, bytes], before: Before, client: docker.DockerClient,
    drained_files: Callable[[frozenset[str]], Mapping[str, bytes]],
) -> str:  # fmt: skip
    if before.lost:
        return (
            f"The files that the running stack was made from ({live}) were gone, so it cannot be put back: what runs"
            " now is what this command started. `make status` shows it."
        )
    if not before.running:
        say("stopping what was started")
        compose(live, "down", "--remove-orphans")
        if before.files:
            write_tree(live, before.files)
        else:
            shutil.rmtree(live)
        return "The stack did not run before, so what was started is stopped again; images, models and keys are kept."
    if not compare(before.files, files):
        return "No file of the stack had been changed; `make status` shows what runs."
    say("putting the previous stack back")
    # the same way back: engines one after the other, the one that failed first
    bring_up(project, live, before.files, look(project, live, client), client, drained_files)
    if before.proven:
        mark_proven(live, before.files)
    return "The previous stack was put back and is running."
