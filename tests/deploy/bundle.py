"""What a host without a way out gets: the images of the stack in an archive, and the wheels of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from stack.config.schema import Images
from stack.deploy.release import for_hosts
from stack.errors import InputError
from stack.images.archive import read_list
from stack.images.choice import choose

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".test-state/bundle"


def bundle() -> Path:
    """The folder, made where it is missing or of other images: a minute, and what building the images takes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not _is_of_this_checkout(FOLDER / "images.tar"):
        _save_images()
    _download_wheels(for_hosts((ROOT / "requirements.lock").read_text()), FOLDER / "wheels")
    return FOLDER


def _is_of_this_checkout(archive: Path) -> bool:
    try:
        read_list(archive)
        choose(ROOT, Images(source="archive", archive=str(archive)), "archive", "cpu")
    except InputError:
        return False
    return archive.with_name(f"{archive.name}.sha256").is_file()


def _save_images() -> None:
    document = yaml.safe_load((ROOT / "tests/deploy/stack.yaml").read_text())
    document |= {"images": {"source": "build"}, "paths": {"state": str(FOLDER / "state")}}
    stack = FOLDER / "build.yaml"
    stack.write_text(yaml.safe_dump(document))
    command = [sys.executable, "scripts/images.py", str(stack), "save", "--archive", str(FOLDER / "images.tar")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def controller_wheels() -> Path:
    """A folder of the bundle with all that a controller installs, which is ansible too."""
    folder = FOLDER / "controller-wheels"
    _download_wheels((ROOT / "requirements.lock").read_text(), folder)
    return folder


def _download_wheels(text: str, wheels: Path) -> None:
    lock, stamp = wheels.with_suffix(".lock"), wheels / "complete"
    if stamp.is_file() and stamp.read_text() == text:
        return
    lock.write_text(text)
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--require-hashes",
               "--only-binary=:all:", "--requirement", str(lock), "--dest", str(wheels)]  # fmt: skip
    subprocess.run(command, check=True)
    stamp.write_text(text)
