"""The playbooks about releases, played for real on folders that stand for hosts; their programs only answer.

No server is needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plays.playing import ANSIBLE, play_file

# Answers as the real one does (tests/unit/test_releases.py), and notes what it was asked.
PROGRAM = """
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "asked").open("a") as asked:
    print(*sys.argv[2:], os.environ.get("STACK_RELEASED_BY", ""), file=asked)
told = json.loads((here / "told.json").read_text())
if told.get("refused"):
    print("error: " + told["refused"], file=sys.stderr)
    sys.exit(2)
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Played:
    """A run of a playbook."""

    code: int
    text: str


class Hosts:
    """Folders that stand for hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, dict[str, Any]] = {}

    def add(self, name: str, program: str, **told: Any) -> Path:
        """A host, and what its program answers; the file in which it notes its arguments."""
        current = self.folder / name / "current"
        (current / "scripts").mkdir(parents=True)
        (current / ".venv/bin").mkdir(parents=True)
        (current / ".venv/bin/python").symlink_to(sys.executable)
        (current / f"scripts/{program}.py").write_text(PROGRAM)
        (current / "scripts/told.json").write_text(json.dumps(told))
        self.variables[name] = {"stack_root": str(current.parent)}
        return current / "scripts/asked"

    def play(self, playbook: str, *arguments: str) -> Played:
        local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
        inventory = {"gpu_nodes": {"hosts": self.variables, "vars": local}}
        return Played(*play_file(ANSIBLE / f"playbooks/{playbook}.yml", inventory, self.folder, *arguments))


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def goal(common: str, release: str = "0ld") -> dict[str, Any]:
    return {"release": release, "before": "new", "cut_off": None, "became_current": True, "done": ["started x"],
            "goal": {"common": common}}  # fmt: skip


def lines(asked: Path) -> list[str]:
    return asked.read_text().splitlines()


def test_every_host_is_asked_before_the_first_is_changed_and_goes_where_it_said(hosts: Hosts) -> None:
    first, second = (hosts.add(name, "rollback", **goal("same", f"of-{name}")) for name in ("h1", "h2"))
    run = hosts.play("rollback")
    assert run.code == 0, run.text
    who = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    for asked, name in ((first, "h1"), (second, "h2")):
        look, real = lines(asked)
        assert "--dry-run" in look
        assert "--dry-run" not in real
        assert f"--to=of-{name}" in real
        assert real.endswith(who)


@pytest.mark.parametrize(
    ("second", "arguments", "says"),
    [
        ({"refused": "models: /m is not on this host any more"}, [], "/m is not on this host any more"),
        (goal("other"), [], "different releases"),
    ],
)
def test_what_one_host_cannot_do_is_done_by_none(
    hosts: Hosts, second: dict[str, Any], arguments: list[str], says: str
) -> None:
    asked = hosts.add("h1", "rollback", **goal("same"))
    hosts.add("h2", "rollback", **second)
    run = hosts.play("rollback", *arguments)
    assert run.code != 0
    assert says in " ".join(run.text.split())
    assert [line for line in lines(asked) if "--dry-run" not in line] == []


def test_a_release_that_is_named_may_be_another_on_each_host(hosts: Hosts) -> None:
    asked = [hosts.add(name, "rollback", **goal(name)) for name in ("h1", "h2")]
    run = hosts.play("rollback", "-e", "rollback_to=f00d")
    assert run.code == 0, run.text
    assert all("--to=f00d" in lines(one)[0] for one in asked)


def test_check_mode_says_where_to_and_changes_nothing(hosts: Hosts) -> None:
    asked = hosts.add("h1", "rollback", **goal("same"))
    run = hosts.play("rollback", "--check")
    assert run.code == 0, run.text
    assert "from new to 0ld" in run.text
    assert len(lines(asked)) == 1


def test_releases_of_every_host_are_written_as_json(hosts: Hosts, tmp_path: Path) -> None:
    for name in ("h1", "h2"):
        hosts.add(name, "releases", releases=[], running=name)
    run = hosts.play("releases", "-e", f"releases_file={tmp_path}/out.json")
    assert run.code == 0, run.text
    found = json.loads((tmp_path / "out.json").read_text())
    assert {name: told["running"] for name, told in found.items()} == {"h1": "h1", "h2": "h2"}


def test_the_history_is_asked_of_the_two_that_are_named(hosts: Hosts) -> None:
    asked = hosts.add("h1", "history", files=[])
    run = hosts.play("releases", "-e", "releases_question=history", "-e", "history_from=a", "-e", "history_to=b")
    assert run.code == 0, run.text
    assert lines(asked) == ["--from=a --to=b "]
