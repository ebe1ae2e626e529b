"""Pulls from real repositories with real SSH signatures: what is signed and newer is deployed, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.errors import InputError, StackError
from stack.pull import report, settings
from stack.pull.report import Remembered, Result
from stack.pull.repository import RefusedError
from stack.pull.run import UnreachableError, play, playbook_command, pull
from stack.pull.settings import Settings

pytestmark = pytest.mark.skipif(
    not (shutil.which("git") and shutil.which("ssh-keygen")), reason="git and ssh-keygen make the signatures"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys of two people."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True
        )
    return {name: folder / name for name in ("alice", "mallory")}


@dataclass
class Origin:
    """The repository that people push to, and the host that pulls from it; alice's key is allowed."""

    folder: Path
    keys: dict[str, Path]
    options: dict[str, Any] = field(default_factory=dict)
    deployed: list[str] = field(default_factory=list)
    fails: bool = False

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def git(self, *arguments: str, signer: str | None = None) -> str:
        settings = {"user.name": "somebody", "user.email": "somebody@example.org", "init.defaultBranch": "main"}
        if signer:
            settings |= {"gpg.format": "ssh", "user.signingKey": str(self.keys[signer])}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.work), *options, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True,
            env={**own, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, text: str, signer: str | None = "alice") -> str:
        (self.work / "stack.yaml").write_text(text)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", text, *(["--gpg-sign"] if signer else []), signer=signer)
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, signer: str | None = "alice") -> None:
        self.git("tag", *(["--sign"] if signer else ["--annotate"]), "--message", name, name, signer=signer)

    def settings(self, **options: Any) -> Settings:
        allowed = self.folder / "allowed_signers"
        public = self.keys["alice"].with_suffix(".pub").read_text().split()
        allowed.write_text(f'alice@example.org namespaces="git" {public[0]} {public[1]}\n')
        given = {"branch": "main", **self.options, **options}
        return Settings(
            url=str(self.work), allowed_signers=allowed, inventory="inventory", host="gpu1",
            state=self.folder / "state", metrics=self.folder / "metrics/pull.prom", **given,
        )  # fmt: skip

    def pull(self, *, again: bool = False, **options: Any) -> Result:
        def deploy(found: Settings, checkout: Path, signer: str) -> None:
            assert found.host == "gpu1"
            self.deployed.append(f"{(checkout / 'stack.yaml').read_text()} by {signer}")
            if self.fails:
                raise StackError("a rule is broken")

        result, _ = pull(self.settings(**options), deploy, again=again)
        return result

    @property
    def metrics(self) -> dict[str, float]:
        lines = (self.folder / "metrics/pull.prom").read_text().splitlines()
        told = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name.removeprefix("node_pull_deploy_"): float(value) for name, value in told}


@pytest.fixture
def origin(tmp_path: Path, keys: dict[str, Path]) -> Origin:
    made = Origin(tmp_path, keys)
    made.work.mkdir()
    made.git("init", "--quiet")
    return made


def test_a_signed_commit_is_deployed_once(origin: Origin) -> None:
    commit = origin.commit("one")
    assert origin.pull() == "applied"
    assert origin.pull() == "unchanged"
    assert origin.deployed == ["one by alice@example.org"]
    assert origin.metrics[f'applied_info{{commit="{commit}",ref="main"}}'] == 1
    assert (origin.metrics["success"], origin.metrics['result{result="unchanged"}']) == (1, 1)
    assert origin.metrics['result{result="applied"}'] == 0


def test_the_next_signed_commit_is_deployed(origin: Origin) -> None:
    origin.commit("one")
    origin.pull()
    (origin.folder / "state/checkout/left over").touch()
    origin.commit("two")
    assert origin.pull() == "applied"
    assert origin.deployed[-1] == "two by alice@example.org"
    assert not (origin.folder / "state/checkout/left over").exists()


@pytest.mark.parametrize("signer", [None, "mallory"])
def test_a_commit_that_nobody_allowed_has_signed_is_not_even_checked_out(origin: Origin, signer: str | None) -> None:
    origin.commit("one")
    origin.pull()
    origin.commit("two", signer)
    with pytest.raises(RefusedError, match="not signed by an allowed signer") as refused:
        origin.pull()
    assert refused.value.exit_code == 2
    assert origin.deployed == ["one by alice@example.org"]
    assert (origin.folder / "state/checkout/stack.yaml").read_text() == "one"
    assert (origin.metrics["success"], origin.metrics['result{result="refused"}']) == (0, 1)


def test_a_signed_commit_on_top_of_unsigned_ones_is_deployed_as_its_signer_saw_them(origin: Origin) -> None:
    origin.commit("one")
    origin.commit("two", None)
    origin.commit("three")
    assert origin.pull() == "applied"


@pytest.mark.parametrize("signer", ["mallory", None])
def test_the_first_pull_is_no_exception(origin: Origin, signer: str | None) -> None:
    origin.commit("one", signer)
    with pytest.raises(RefusedError):
        origin.pull()
    assert origin.deployed == []
    assert not (origin.folder / "state/checkout/stack.yaml").exists()


def test_an_older_commit_is_refused_though_it_is_signed(origin: Origin) -> None:
    one = origin.commit("one")
    origin.commit("two")
    origin.pull()
    origin.git("reset", "--quiet", "--hard", one)
    with pytest.raises(RefusedError, match="does not come after"):
        origin.pull()
    assert origin.deployed == ["two by alice@example.org"]


def test_another_line_of_history_is_refused_though_it_is_signed(origin: Origin) -> None:
    one = origin.commit("one")
    origin.commit("two")
    origin.pull()
    origin.git("reset", "--quiet", "--hard", one)
    origin.commit("another two")
    with pytest.raises(RefusedError, match="another line of history"):
        origin.pull()


def test_what_comes_before_the_first_trusted_commit_is_refused(origin: Origin) -> None:
    one, two = origin.commit("one"), origin.commit("two")
    origin.git("reset", "--quiet", "--hard", one)
    with pytest.raises(RefusedError):
        origin.pull(not_before=two)
    origin.git("reset", "--quiet", "--hard", two)
    assert origin.pull(not_before=two) == "applied"


def tampered(origin: Origin, commit: str) -> str:
    """The commit with its signature and another message: a new object, as changing the old one would break its name."""
    text = origin.git("cat-file", "commit", commit) + "\nand more\n"
    command = ["git", "-C", str(origin.work), "hash-object", "-t", "commit", "-w", "--stdin"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()


def test_a_commit_that_was_changed_after_it_was_signed_is_refused(origin: Origin) -> None:
    origin.commit("one")
    origin.pull()
    changed = tampered(origin, origin.commit("two"))
    origin.git("reset", "--quiet", "--hard", changed)
    with pytest.raises(RefusedError, match="not signed"):
        origin.pull()


def test_a_key_that_was_allowed_for_something_else_is_refused(origin: Origin) -> None:
    origin.commit("one")
    given = origin.settings()
    given.allowed_signers.write_text(given.allowed_signers.read_text().replace('"git"', '"file"'))
    with pytest.raises(RefusedError):
        pull(given, lambda *_: origin.deployed.append("deployed"))
    assert origin.deployed == []


def test_settings_of_the_user_do_not_widen_what_is_trusted(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    public = origin.keys["mallory"].with_suffix(".pub").read_text()
    (origin.folder / "all").write_text(f"* {public}")
    home = origin.folder / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[gpg "ssh"]\n  allowedSignersFile = {origin.folder}/all\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "gpg.ssh.allowedSignersFile")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(origin.folder / "all"))
    origin.commit("one", "mallory")
    with pytest.raises(RefusedError):
        origin.pull()


# --- tags


@pytest.fixture
def tagged(origin: Origin) -> Origin:
    origin.options = {"branch": None, "tags": "v*"}
    return origin


def test_the_newest_signed_tag_is_deployed_by_version_and_nothing_after_it(tagged: Origin) -> None:
    tagged.commit("one", None)
    tagged.tag("v1.9")
    tagged.commit("two", None)
    tagged.tag("v1.10")
    tagged.commit("three")
    tagged.git("tag", "other", "HEAD")
    assert tagged.pull() == "applied"
    assert tagged.deployed == ["two by alice@example.org"]


@pytest.mark.parametrize("signer", [None, "mallory"])
def test_a_tag_that_nobody_allowed_has_signed_is_refused(tagged: Origin, signer: str | None) -> None:
    tagged.commit("one")
    tagged.tag("v1", signer)
    with pytest.raises(RefusedError):
        tagged.pull()


def test_a_name_without_a_tag_of_its_own_is_refused_though_its_commit_is_signed(tagged: Origin) -> None:
    tagged.commit("one")
    tagged.git("tag", "v1")
    with pytest.raises(RefusedError):
        tagged.pull()


def test_a_signed_tag_under_another_name_is_refused(tagged: Origin) -> None:
    tagged.commit("one")
    tagged.tag("test-1")
    tagged.git("update-ref", "refs/tags/v9", "refs/tags/test-1")
    with pytest.raises(RefusedError, match="signed as test-1"):
        tagged.pull()


def test_an_older_tag_is_refused(tagged: Origin) -> None:
    tagged.commit("one")
    tagged.tag("v1")
    tagged.commit("two")
    tagged.tag("v2")
    tagged.pull()
    tagged.git("tag", "--delete", "v2")
    with pytest.raises(RefusedError, match="does not come after"):
        tagged.pull()


def test_a_repository_without_a_tag_is_told(tagged: Origin) -> None:
    tagged.commit("one")
    with pytest.raises(StackError, match="no tag"):
        tagged.pull()


# --- what goes wrong


def test_a_repository_that_does_not_answer_is_no_refusal(origin: Origin) -> None:
    origin.commit("one")
    origin.pull()
    before = origin.metrics["last_success_timestamp_seconds"]
    origin.work.rename(origin.folder / "away")
    with pytest.raises(UnreachableError):
        pull(origin.settings(), lambda *_: None)
    assert origin.metrics['result{result="unreachable"}'] == 1
    assert origin.metrics["last_success_timestamp_seconds"] == before


def test_a_commit_that_cannot_be_deployed_is_tried_some_times_and_then_waits_for_the_next(origin: Origin) -> None:
    origin.commit("one")
    origin.pull()
    origin.commit("two")
    origin.fails = True
    for _ in range(3):
        with pytest.raises(StackError):
            origin.pull(attempts=2)
    assert len(origin.deployed) == 3
    assert origin.metrics['result{result="failed"}'] == 1
    with pytest.raises(StackError, match="broken"):
        origin.pull(attempts=2, again=True)
    origin.fails = False
    origin.commit("three")
    assert origin.pull(attempts=2) == "applied"
    assert report.load(origin.folder / "state").attempts == 0


def test_what_failed_is_not_what_was_applied(origin: Origin) -> None:
    one = origin.commit("one")
    origin.pull()
    origin.commit("two")
    origin.fails = True
    with pytest.raises(StackError):
        origin.pull()
    assert report.load(origin.folder / "state").commit == one


def test_a_damaged_memory_applies_nothing(origin: Origin) -> None:
    origin.commit("one")
    origin.pull()
    (origin.folder / "state/pulled.json").write_text("{")
    origin.commit("two")
    with pytest.raises(StackError, match="not_before"):
        origin.pull()
    assert len(origin.deployed) == 1


# --- settings, metrics, command


BASE: dict[str, Any] = {"url": "u", "branch": "main", "allowed_signers": "/a", "inventory": "i", "host": "h",
                        "state": "/s", "metrics": "/m"}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [{"tags": "v*"}, {"branch": None}, {"url": "--upload-pack=x"}, {"branch": "-x"}, {"attempts": 0}, {"x": 1},
     {"not_before": "main"}, {"branch": None, "tags": "a*b*"}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "pull.yaml"
    path.write_text(yaml.safe_dump(BASE))
    settings.load(path)
    path.write_text(yaml.safe_dump({**BASE, **changed}))
    with pytest.raises(InputError) as refused:
        settings.load(path)
    assert refused.value.exit_code == 2


def test_metrics_of_a_host_that_never_succeeded_say_no_time_of_success() -> None:
    text = report.metrics(Remembered(), "refused", 5.0, 900)
    assert "success_timestamp" not in text
    assert "applied_info" not in text
    assert "node_pull_deploy_interval_seconds 900" in text


def test_a_ref_cannot_break_the_metrics() -> None:
    text = report.metrics(Remembered(commit="c", ref='a"b\\c'), "applied", 5.0, 900)
    assert r'ref="a\"b\\c"' in text


def test_a_checkout_is_played_here_on_this_host_alone(tmp_path: Path) -> None:
    given = Settings(**{**BASE, "project": "vendor/stack", "vault_password_file": "/etc/vault"})
    command = playbook_command(given, tmp_path)
    assert command[0] == f"{tmp_path}/vendor/stack/.venv/bin/ansible-playbook"
    assert {"--limit=h", f"--inventory={tmp_path}/i", "--vault-password-file=/etc/vault"} <= set(command)
    assert any("ansible_connection=local" in part for part in command)


SETUP = """#!/bin/sh
mkdir -p .venv/bin
cat >.venv/bin/ansible-playbook <<'EOF'
#!/bin/sh
echo "$STACK_RELEASED_BY; $ANSIBLE_CONFIG; $*" >>played
echo '  hosts (1):'; echo '    gpu1'
EOF
chmod +x .venv/bin/ansible-playbook
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose programs note how they are called."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts/setup.sh").write_text(SETUP)
    (folder / "scripts/setup.sh").chmod(0o755)
    return folder


def test_a_checkout_is_played_in_its_own_python_in_the_name_of_its_signer(checkout: Path) -> None:
    play(Settings(**{**BASE, "host": "gpu1"}), checkout, "alice@example.org")
    look, real = (checkout / "played").read_text().splitlines()
    assert look.endswith("--list-hosts")
    assert not real.endswith("--list-hosts")
    assert real.startswith(f"pull, signed by alice@example.org; {checkout}/ansible/ansible.cfg; ")


def test_a_playbook_that_is_not_for_this_host_is_no_success(checkout: Path) -> None:
    with pytest.raises(StackError, match="not for h"):
        play(Settings(**BASE), checkout, "alice")
    assert len((checkout / "played").read_text().splitlines()) == 1


def test_a_set_up_that_fails_is_told(checkout: Path) -> None:
    (checkout / "scripts/setup.sh").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(StackError, match=r"setup\.sh ended with 3"):
        play(Settings(**BASE), checkout, "alice")
    (checkout / "scripts/setup.sh").unlink()
    with pytest.raises(StackError, match="No such file"):
        play(Settings(**BASE), checkout, "alice")
