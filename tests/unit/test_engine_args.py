"""Asking vLLM's own parser: what its container prints is constructed here, and how it is started is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import docker
import pytest
import requests

from stack.engine_args import refusals
from stack.errors import StackError


class FakeEngine:
    """A Docker client with one image; remembers the container that was asked for, and what became of it."""

    def __init__(self, out: str = "", err: str = "", error: Exception | None = None) -> None:
        self.out, self.err, self.error = out, err, error
        self.containers = self
        self.asked: dict[str, Any] = {}
        self.removed = 0

    def create(self, image: str, **options: Any) -> FakeEngine:
        self.asked = {"image": image, **options}
        return self

    def start(self) -> None:
        if self.error:
            raise self.error

    def wait(self, **_: object) -> None:
        pass

    def logs(self, *, stdout: bool, stderr: bool) -> bytes:
        assert stdout != stderr
        return (self.out if stdout else self.err).encode()

    def remove(self, **_: object) -> None:
        self.removed += 1


def ask(engine: FakeEngine, argvs: list[list[str]], model_dir: Path | None = None) -> list[str | None]:
    return refusals(cast(docker.DockerClient, engine), "image:1", argvs, model_dir)


def test_the_answer_is_found_among_what_else_the_image_prints() -> None:
    engine = FakeEngine('INFO loading\nRESULT [null, "no such flag"]\nbye\n', "WARNING odd\n")
    assert ask(engine, [["--a"], ["--b", "$c"]]) == [None, "no such flag"]
    assert [["--a"], ["--b", "$c"]] in [json.loads(word) for word in engine.asked["command"] if word.startswith("[")]
    assert engine.removed == 1


def test_the_image_runs_without_a_network_or_a_right() -> None:
    engine = FakeEngine("RESULT []\n")
    ask(engine, [])
    asked = engine.asked
    assert (asked["image"], asked["network_mode"], asked["read_only"]) == ("image:1", "none", True)
    assert (asked["cap_drop"], asked["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert not asked["user"].startswith("0")
    assert {volume["mode"] for volume in asked["volumes"].values()} == {"ro"}
    assert "--configure" not in asked["command"]


def test_a_model_is_mounted_to_be_looked_at(tmp_path: Path) -> None:
    engine = FakeEngine("RESULT []\n")
    ask(engine, [], tmp_path)
    assert engine.asked["volumes"][str(tmp_path)] == {"bind": "/model", "mode": "ro"}
    assert "--configure" in engine.asked["command"]


def test_an_image_that_does_not_answer_is_an_error_with_its_last_lines() -> None:
    engine = FakeEngine(err="Traceback\nModuleNotFoundError: No module named 'vllm'\n")
    with pytest.raises(StackError, match="No module named 'vllm'"):
        ask(engine, [["--a"]])
    assert engine.removed == 1


@pytest.mark.parametrize("error", [docker.errors.APIError("no space"), requests.ReadTimeout("300 s")])
def test_an_engine_that_fails_is_an_error_and_leaves_no_container(error: Exception) -> None:
    engine = FakeEngine("RESULT []\n", error=error)
    with pytest.raises(StackError, match="could not be asked"):
        ask(engine, [["--a"]])
    assert engine.removed == 1
