"""Fixtures: a stack file in a scratch folder, an environment that knows no proxy, a process left as it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unit import authority

WriteStack = Callable[[str | bytes], Path]


@pytest.fixture(autouse=True, scope="session")
def no_proxies() -> Iterator[None]:
    """Loopback servers are asked directly, whatever the machine's environment says."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patched.delenv(name, raising=False)
            patched.delenv(name.lower(), raising=False)
        yield


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Commands that run in this process set its umask and its signal handlers."""
    umask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    yield
    os.umask(umask)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def write_stack(tmp_path: Path) -> WriteStack:
    """Writes stack.yaml and gives its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "stack.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="session")
def small_trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate to trust: reading the machine's hundreds takes a client longer than a test."""
    folder = tmp_path_factory.mktemp("trust")
    authority.write_own(folder)
    return folder / authority.OWN["certificate"]


@pytest.fixture
def no_hub_settings(monkeypatch: pytest.MonkeyPatch, small_trust: Path) -> None:
    """No token and no mirror of the machine that the tests run on."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(small_trust))
