"""Models from the hub: what arrives, what is refused, and what a failed fetch leaves. The hub here is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml

from stack.errors import StackError
from stack.fetch import ensure_models
from unit import given

COMMIT, PINNED = "a" * 40, "b" * 40
FILES = ("config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "modeling.py", "training.pt")


class Hub:
    """What was asked of the hub, and what it answers."""

    def __init__(self) -> None:
        self.files: tuple[str, ...] = FILES
        self.error: Exception | None = None
        self.tokens: list[str | None] = []
        self.revisions: list[str | None] = []

    def api(self, token: str | None = None) -> Any:
        self.tokens.append(token)
        return SimpleNamespace(model_info=self.info)

    def info(self, repository: str, *, revision: str | None, timeout: float) -> Any:
        self.revisions.append(revision)
        return SimpleNamespace(sha=revision or COMMIT)

    def download(self, repository: str, *, local_dir: Path, allow_patterns: list[str], **_: object) -> None:
        for name in self.files:
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (local_dir / name).write_text(repository)
        if self.error:
            raise self.error


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    it = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", it.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", it.download)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return it


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., Path]:
    """Fetches o/m; where the plan expects it."""

    def call(**source: str) -> Path:
        stack = given.config(given.toy(source={"hub": "o/m", **source}), paths={"state": str(tmp_path)})
        ensure_models(stack, tmp_path, lambda _: None)
        return Path(given.plan(stack).engines[0].model_dir)

    return call


def arrived(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_model_lands_where_the_plan_mounts_it(hub: Hub, fetch: Callable[..., Path]) -> None:
    assert arrived(fetch()) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_what_is_there_is_not_fetched_again(hub: Hub, fetch: Callable[..., Path]) -> None:
    fetch()
    fetch()
    assert len(hub.revisions) == 1


def test_a_pinned_revision_is_the_one_that_is_fetched(hub: Hub, fetch: Callable[..., Path], tmp_path: Path) -> None:
    assert fetch(revision=PINNED) != fetch()
    assert hub.revisions == [PINNED, None]


def test_the_commit_that_came_is_on_record(hub: Hub, fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "models.lock").write_text("other/model: " + "c" * 40 + "\n")
    fetch()
    assert yaml.safe_load((tmp_path / "models.lock").read_text()) == {"o/m": COMMIT, "other/model": "c" * 40}


def test_a_token_of_the_environment_opens_gated_models(
    hub: Hub, fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch()
    assert hub.tokens == ["hf_secret"]


def test_weights_that_could_run_code_are_not_fetched(hub: Hub, fetch: Callable[..., Path], tmp_path: Path) -> None:
    hub.files = ("config.json", "pytorch_model.bin")
    with pytest.raises(StackError, match=r"o/m has no \*\.safetensors"):
        fetch()
    assert "pytorch_model.bin" not in arrived(tmp_path)


def test_a_fetch_that_breaks_off_is_told_what_to_do_and_is_not_taken_for_a_model(
    hub: Hub, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    hub.error = OSError(28, "No space left on device")
    with pytest.raises(StackError, match=r"model toy: o/m could not be fetched: .*No space left") as error:
        fetch()
    assert "HF_TOKEN" in str(error.value)
    assert not (tmp_path / "models.lock").exists()
    # what came is resumed, and only the whole model is in its place
    hub.error, hub.files = None, ("tokenizer.json",)
    assert "model.safetensors" in arrived(fetch())
