"""The repository that a host pulls from. Nothing of it is in the work tree before git has proven who signed it.

git's own verify-commit and verify-tag do the proving, with ssh-keygen and a file of allowed signers. Settings of the
system and of the user are left out, so that none of them can widen what is trusted.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack.errors import InputError, StackError
from stack.pull.settings import Settings

BRANCH = "refs/remotes/pulled/branch"
FETCH_SECONDS = 600
GOOD = re.compile(r'^Good "git" signature for (\S+) with ', re.MULTILINE)


class RefusedError(InputError):
    """What the repository says is not to be applied."""


@dataclass(frozen=True)
class Candidate:
    """What the repository wants applied. ref: the branch or tag; named: the object that carries the signature."""

    ref: str
    commit: str
    named: str


@dataclass(frozen=True)
class Repository:
    """A clone of the host's own, root's alone."""

    settings: Settings

    @property
    def folder(self) -> Path:
        """Its work tree, at the commit that was verified last."""
        return self.settings.state / "checkout"

    def fetch(self) -> None:
        """Bring what the repository has now; nothing of it is checked out. Raises StackError."""
        if not (self.folder / ".git").is_dir():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._git("init", "--quiet", "--template=")
        what = (
            f"+refs/heads/{self.settings.branch}:{BRANCH}"
            if self.settings.branch
            else f"+refs/tags/{self.settings.tags}:refs/tags/{self.settings.tags}"
        )
        # pruned: a tag that was taken back is not a candidate any more
        self._git("fetch", "--quiet", "--no-tags", "--prune", "--no-recurse-submodules", self.settings.url, what)

    def candidate(self) -> Candidate:
        """The newest commit of the branch, or the newest tag. Raises StackError."""
        if self.settings.branch:
            commit = self._git("rev-parse", "--verify", f"{BRANCH}^{{commit}}")
            return Candidate(self.settings.branch, commit, commit)
        listed = self._git(
            "for-each-ref",
            "--sort=-version:refname",
            "--format=%(refname) %(objectname)",
            f"refs/tags/{self.settings.tags}",
        )
        if not listed:
            raise StackError(f"{self.settings.url}: no tag {self.settings.tags!r}")
        ref, named = listed.splitlines()[0].split()
        return Candidate(
            ref.removeprefix("refs/tags/"), self._git("rev-parse", "--verify", f"{named}^{{commit}}"), named
        )

    def signer(self, candidate: Candidate) -> str:
        """Who signed it, by the name in the file of allowed signers. Raises RefusedError."""
        kind = "verify-commit" if self.settings.branch else "verify-tag"
        done = self._run(kind, candidate.named)
        good = GOOD.search(done.stderr)
        if done.returncode or not good:
            said = " ".join(done.stderr.split()) or "no signature"
            raise RefusedError(candidate.ref, f"{candidate.commit} is not signed by an allowed signer: {said}")
        if self.settings.tags:
            self._refuse_renamed(candidate)
        return good[1]

    def _refuse_renamed(self, candidate: Candidate) -> None:
        # the name that was signed is in the tag; the one that it is found by is anybody's who may push
        signed = re.search(r"^tag (.*)$", self._git("cat-file", "tag", candidate.named), re.MULTILINE)
        if not signed or signed[1] != candidate.ref:
            raise RefusedError(candidate.ref, f"the tag was signed as {signed[1] if signed else 'nothing'}")

    def refuse_older(self, candidate: Candidate, base: str | None) -> None:
        """Raise RefusedError unless what was applied before is part of the candidate's history."""
        if base is None:
            return
        if self._run("merge-base", "--is-ancestor", base, candidate.commit).returncode:
            raise RefusedError(
                candidate.ref, f"{candidate.commit} does not come after {base}: older, or another line of history"
            )

    def check_out(self, candidate: Candidate) -> None:
        """Make the work tree exactly this commit; its Python environment may stay."""
        self._git("checkout", "--quiet", "--force", "--detach", candidate.commit)
        self._git("clean", "--quiet", "-ffdx", "--exclude=.venv")

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            raise StackError(f"git {arguments[0]}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
        return done.stdout.strip()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        trusted = {
            "gpg.ssh.allowedSignersFile": str(self.settings.allowed_signers),
            # a good signature of somebody who is not in that file is none
            "gpg.minTrustLevel": "fully",
            # keys of root's own keyring are not what is trusted
            "gpg.openpgp.program": "false",
            "gpg.x509.program": "false",
            "fetch.fsckObjects": "true",
            "core.hooksPath": "/dev/null",
        }
        options = [part for key, value in trusted.items() for part in ("-c", f"{key}={value}")]
        try:
            return subprocess.run(
                ["git", "-C", str(self.folder), *options, *arguments], capture_output=True, text=True, check=False,
                env=self._environment(), timeout=FETCH_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise StackError(f"git {arguments[0]}: no end after {FETCH_SECONDS} s") from None

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        if self.settings.ssh_key:
            ssh += ["-o", "IdentitiesOnly=yes", "-i", str(self.settings.ssh_key)]
        if self.settings.known_hosts:
            ssh += ["-o", f"UserKnownHostsFile={self.settings.known_hosts}"]
        return {
            **own, "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": shlex.join(ssh),
        }  # fmt: skip
