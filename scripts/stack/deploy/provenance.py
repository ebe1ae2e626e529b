"""Where a release is from: the commit of the checkout that it is made in, who makes it, and when."""

from __future__ import annotations

import getpass
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

# Who asks, where that is not the user that runs the program: a playbook's on the host, a pull's signer.
BY = "STACK_RELEASED_BY"


def now() -> str:
    """The time, UTC, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def who() -> str:
    """The person, or what stands for one."""
    try:
        return os.environ.get(BY) or os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"  # a user without a name


def revision(root: Path) -> tuple[str | None, bool]:
    """(commit, whether anything differs from it) of a checkout; (None, False) of a folder that is none.

    A folder that merely lies inside somebody's repository has no revision of its own.
    """
    if _git(root, "ls-files", "--error-unmatch", "scripts/release.py") is None:
        return None, False
    return _git(root, "rev-parse", "HEAD"), bool(_git(root, "status", "--porcelain"))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None  # a controller without git
    return done.stdout.strip() if done.returncode == 0 else None
