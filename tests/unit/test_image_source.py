"""Where images come from: `auto` builds for the example that make chose by itself, and for nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.config.schema import Images
from stack.images.source import BY_DEFAULT, EMBEDDED, choose_source, registry_answers, remember, source_of
from stacks import ROOT
from unit.loopback import Answer, serve

AUTO = Images(source="auto")
EXAMPLE = ROOT / EMBEDDED
Answers = Callable[[bool], list[str]]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Says whether the registry answers; the list of hosts that were asked."""

    def told(answer: bool) -> list[str]:
        asked: list[str] = []

        def ask(host: str) -> bool:
            asked.append(host)
            return answer

        monkeypatch.setattr("stack.images.source.registry_answers", ask)
        return asked

    return told


@pytest.fixture
def by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BY_DEFAULT, "yes")


@pytest.mark.usefixtures("by_default")
def test_the_embedded_default_builds_where_no_registry_answers(registry: Answers, tmp_path: Path) -> None:
    for answer, source in ((False, "build"), (True, "registry")):
        asked = registry(answer)
        assert source_of(AUTO, EXAMPLE, ROOT, tmp_path / "known") == source
        assert asked == ["registry-1.docker.io"]


@pytest.mark.usefixtures("by_default")
def test_what_the_default_has_built_once_it_goes_on_building(registry: Answers, tmp_path: Path) -> None:
    known = tmp_path / "known"
    remember("build", AUTO, EXAMPLE, ROOT, known)
    asked = registry(True)
    assert source_of(AUTO, EXAMPLE, ROOT, known) == "build"
    assert asked == []


@pytest.mark.usefixtures("by_default")
def test_no_other_file_builds_for_auto(registry: Answers, tmp_path: Path) -> None:
    asked = registry(False)
    known = tmp_path / "known"
    copy = tmp_path / "stack.yaml"
    copy.write_bytes(EXAMPLE.read_bytes())
    known.write_text("source: build\n")
    assert source_of(AUTO, copy, ROOT, known) == "registry"
    remember("registry", AUTO, copy, ROOT, known)
    assert known.read_text() == "source: build\n"
    assert asked == []


@pytest.mark.parametrize("value", [None, ""])
def test_the_example_given_by_name_does_not_build(
    registry: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    asked = registry(False)
    monkeypatch.delenv(BY_DEFAULT, raising=False)
    if value is not None:
        monkeypatch.setenv(BY_DEFAULT, value)
    known = tmp_path / "known"
    known.write_text("source: build\n")
    assert source_of(AUTO, EXAMPLE, ROOT, known) == "registry"
    assert asked == []


@pytest.mark.usefixtures("by_default")
@pytest.mark.parametrize("source", ["registry", "archive", "build"])
def test_a_source_that_is_named_is_that_one(registry: Answers, tmp_path: Path, source: str) -> None:
    asked = registry(True)
    assert source_of(Images.model_validate({"source": source}), EXAMPLE, ROOT, tmp_path / "known") == source
    assert asked == []


def made(*arguments: str) -> str:
    """What a recipe of the Makefile sees in BY_DEFAULT."""
    tell = f'tell:\n\t@echo "[$${BY_DEFAULT}]"\n'
    command = ["make", "-s", "-f", "-", "tell", *arguments]
    text = (ROOT / "Makefile").read_text() + "\n" + tell
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True).stdout.strip()


def test_make_says_whether_it_chose_the_stack_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACK", raising=False)
    assert made() == "[yes]"
    assert made(f"STACK={EMBEDDED}") == "[]"
    monkeypatch.setenv("STACK", str(EMBEDDED))
    assert made() == "[]"


def test_the_registry_that_is_asked_is_the_one_to_pull_from() -> None:
    asked: list[str] = []

    def answers(host: str) -> bool:
        asked.append(host)
        return len(asked) == 1

    assert choose_source("localhost:5000/mirror/x", answers) == "registry"
    assert choose_source(None, answers) == "build"
    assert asked == ["localhost:5000", "registry-1.docker.io"]


@pytest.mark.parametrize(
    ("answer", "speaks"),
    [
        (Answer(200), True),
        (Answer(401), True),
        (Answer(503, headers={"Docker-Distribution-Api-Version": "registry/2.0"}), True),
        (Answer(403, b"<html>blocked by policy</html>"), False),
        (Answer(502), False),
    ],
)
def test_a_registry_is_told_from_a_proxys_own_page(answer: Answer, speaks: bool) -> None:
    with serve(answer) as server:
        assert registry_answers(f"127.0.0.1:{server.port}") is speaks
    assert "/v2/" in server.paths


def test_a_login_page_that_one_is_sent_to_is_no_registry() -> None:
    with serve(Answer(200, b"<html>log in</html>")) as portal:
        with serve(Answer(302, headers={"Location": f"{portal.url}/login"})) as server:
            assert registry_answers(f"127.0.0.1:{server.port}") is False
        assert portal.paths == []


def test_nobody_at_the_address_is_no_registry() -> None:
    with serve(Answer(200)) as server:
        port = server.port
    assert registry_answers(f"127.0.0.1:{port}") is False
