"""Looking at a page in a headless Chromium, and at the pixels of its picture."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
# It talks to nobody, and is a user's that never was: nothing of this machine's profile gets into the picture.
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
Pixels = NDArray[np.uint8]


def find() -> str | None:
    """A Chromium of this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def picture(browser: str, page: Path, folder: Path, *, dark: bool, width: int = 1500, height: int = 2600) -> Path:
    """A picture of a page, as a PNG in folder, which is used for nothing else."""
    profile, file = folder / "profile", folder / ("dark.png" if dark else "light.png")
    profile.mkdir(exist_ok=True)
    mode = ["--force-dark-mode"] if dark else []
    command = [browser, *QUIET, *mode, f"--user-data-dir={profile}", f"--window-size={width},{height}",
               f"--screenshot={file}", page.resolve().as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert file.is_file(), done.stderr[-2000:]
    return file


def pixels(png: Path) -> Pixels:
    """Red, green and blue of a picture: height x width x 3."""
    with Image.open(png) as image:
        return np.asarray(image.convert("RGB"))
