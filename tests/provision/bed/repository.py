"""Signed apt repositories as flat folders, as NVIDIA's are, made of stub packages and served over HTTP."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from provision.bed.packages import Package, all_packages, build_all

INDEX = "Packages"


class Repositories:
    """One folder for each suite (cuda, toolkit) with its index, and the key that signs them all: throw-away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gnupg = folder / ".gnupg"
        self._gnupg.mkdir(parents=True, mode=0o700)
        self._gpg("--passphrase", "", "--quick-generate-key", "Test bed <bed@localhost>", "ed25519", "sign", "never")
        (folder / "key.asc").write_text(self._gpg("--armor", "--export"))

    def publish(self, name: str, keep: Callable[[Package], bool] = lambda package: True) -> None:
        """A repository `name` per suite with the packages that `keep` lets through."""
        packages = [package for package in all_packages() if keep(package)]
        for suite in sorted({package.suite for package in packages}):
            place = self.folder / name / suite
            place.mkdir(parents=True)
            build_all([package for package in packages if package.suite == suite], place)
            self.index(place)

    def index(self, place: Path) -> None:
        """Packages, Release and its signature, as apt wants them of a flat repository."""
        listed = "\n".join(_stanza(path) for path in sorted(place.glob("*.deb")))
        (place / INDEX).write_text(listed)
        data = listed.encode()
        release = f"Origin: NVIDIA\nLabel: test bed\nSuite: stable\nDate: {_now()}\nSHA256:\n"
        release += f" {hashlib.sha256(data).hexdigest()} {len(data)} {INDEX}\n"
        (place / "Release").write_text(release)
        (place / "InRelease").unlink(missing_ok=True)
        self._gpg("--clearsign", "--output", str(place / "InRelease"), str(place / "Release"))

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._gnupg), "--kill", "gpg-agent"], check=False)
        shutil.rmtree(self.folder)

    def _gpg(self, *arguments: str) -> str:
        command = ["gpg", "--homedir", str(self._gnupg), "--batch", "--yes", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
        ).stdout


def _stanza(path: Path) -> str:
    """What an index says of a package."""
    control = subprocess.run(["dpkg-deb", "--field", str(path)], check=True, capture_output=True, text=True).stdout
    data = path.read_bytes()
    return f"{control}Filename: ./{path.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"


def _now() -> str:
    return subprocess.run(["date", "-uR"], check=True, capture_output=True, text=True).stdout.strip()
