"""One pull, told as a story: fetch, prove, compare with what was applied, check out, deploy."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from stack.console import say
from stack.deploy.provenance import BY
from stack.errors import StackError
from stack.locks import only_one
from stack.pull import report
from stack.pull.report import Remembered, Result
from stack.pull.repository import RefusedError, Repository
from stack.pull.settings import Settings

Deploy = Callable[[Settings, Path, str], None]
# What a playbook says is progress; results are on stdout.
STDERR = 2


class UnreachableError(StackError):
    """The repository did not answer."""


def pull(settings: Settings, deploy: Deploy, *, again: bool = False) -> tuple[Result, Remembered]:
    """Apply what the repository says, where it is signed and new; how it ended, which is also written as metrics.

    again: what is applied already too, and what was given up. Raises RefusedError and StackError.
    """
    with only_one(settings.state):
        remembered = report.load(settings.state)
        result: Result = "failed"
        try:
            result, remembered = _pull(settings, remembered, deploy, again)
        except RefusedError:
            result = "refused"
            raise
        except UnreachableError:
            result = "unreachable"
            raise
        finally:
            # read again: what was tried is remembered before it is tried
            kept = report.load(settings.state) if result == "failed" else remembered
            kept = kept.after(result, time.time())
            report.save(settings.state, kept)
            report.write_metrics(settings.metrics, report.metrics(kept, result, time.time(), settings.interval))
    return result, kept


def _pull(settings: Settings, known: Remembered, deploy: Deploy, again: bool) -> tuple[Result, Remembered]:
    repository = Repository(settings)
    try:
        repository.fetch()
    except StackError as error:
        raise UnreachableError(f"{settings.url}: {error}") from None
    candidate = repository.candidate()
    if candidate.commit == known.commit and not again:
        return "unchanged", known
    signer = repository.signer(candidate)
    repository.refuse_older(candidate, known.commit or settings.not_before)
    if known.given_up(candidate.commit, settings.attempts) and not again:
        raise StackError(
            f"{candidate.commit} ({candidate.ref}) could not be deployed {known.attempts} times and is not tried again:"
            " push what mends it, or run this with --again"
        )
    say(f"{candidate.ref} is {candidate.commit}, signed by {signer}")
    report.save(settings.state, known.trying(candidate.commit))
    repository.check_out(candidate)
    deploy(settings, repository.folder, signer)
    return "applied", known.having_applied(candidate.commit, candidate.ref, signer)


def play(settings: Settings, checkout: Path, signer: str) -> None:
    """Deploy a checkout to this host, by its own playbook in its own Python. Raises StackError."""
    project = checkout / settings.project
    own = {
        **os.environ, BY: f"pull, signed by {signer}", "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(project / "ansible/ansible.cfg"), "ANSIBLE_HOME": str(settings.state / "ansible"),
    }  # fmt: skip
    _run(["scripts/setup.sh", "venv"], project, own)
    command = playbook_command(settings, checkout)
    listed = _run([*command, "--list-hosts"], project, own, capture=True)
    if settings.host not in listed.split():
        raise StackError(f"{settings.playbook} in the repository is not for {settings.host}: nothing was deployed")
    _run(command, project, own)


def playbook_command(settings: Settings, checkout: Path) -> list[str]:
    """The same playbook that a controller plays, on this host alone and without SSH."""
    vault = settings.vault_password_file
    return [
        str(checkout / settings.project / ".venv/bin/ansible-playbook"),
        f"--inventory={checkout / settings.inventory}",
        f"--limit={settings.host}",
        "--extra-vars=ansible_connection=local ansible_become=false",
        *([f"--vault-password-file={vault}"] if vault else ()),
        settings.playbook,
    ]


def _run(command: list[str], folder: Path, environment: dict[str, str], *, capture: bool = False) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, text=True, check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else STDERR,
        )  # fmt: skip
    except OSError as error:
        raise StackError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise StackError(f"{Path(command[0]).name} ended with {done.returncode}: see above what it said")
    return done.stdout or ""


def shown(result: Result, remembered: Remembered) -> str:
    """One line for a person."""
    what = f"{remembered.ref} {remembered.commit}" if remembered.commit else "nothing"
    return f"{result}: {what}" + (f", signed by {remembered.signer}" if remembered.signer else "")
