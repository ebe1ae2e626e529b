"""Hosts of a fleet as folders of this machine, with stand-ins for their programs, and the real plays about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plays.playing import ANSIBLE, play

ROLES = {
    "front": ["gateway", "observability"],
    "second": ["gateway"],
    "a": ["engines"],
    "b": ["engines"],
}
OLD, NEW = "0ld", "new"
KNOWN = {"name": "stack", "tasks_from": "known"}
NOT_HERE = {"firewall": KNOWN, "boot": KNOWN, "keepalived": KNOWN}
# Writes down what it was called with; fails where `fails` names a part of that; else says what `says` has for its name.
PROGRAM = """\
#!{python}
import json, os, pathlib, sys
script = pathlib.Path(sys.argv[1])
words = [word for word in sys.argv[2:] if not word.endswith(".yaml") and not word.startswith(("--ship", "--wait"))]
line = " ".join(["{host}:", "{release}", script.name, *words])
with open("{folder}/log", "a") as file:
    file.write(line + "\\n")
for part, why in json.load(open("{folder}/fails")).items():
    if part in line:
        sys.exit(why)
says = json.load(open("{folder}/{host}/says"))
heard = sys.stdin.read() if script.name == "fleet_steps.py" else ""
if heard:
    pathlib.Path("{folder}/heard").write_text(heard)
print(json.dumps(says.get(script.name, {{}})))
"""


@dataclass
class Ran:
    """How plays ended: exit code, what was printed, and which programs were called where: host, release, words."""

    code: int
    out: str
    calls: list[str]

    @property
    def told(self) -> str:
        """What was printed, as one line."""
        return " ".join(self.out.split())

    def named(self, *names: str) -> list[str]:
        """The calls of some programs."""
        return [call for call in self.calls if call.split()[2] in names]


class Fleet:
    """The hosts, what their programs say, and what plays know of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.says: dict[str, dict[str, Any]] = {host: self._says(host) for host in ROLES}
        for host in ROLES:
            for release in (OLD, NEW):
                self._release(host, release)
            (folder / host / "current").symlink_to(f"releases/{NEW}")

    def _release(self, host: str, release: str) -> None:
        root = self.folder / host / "releases" / release
        for path in (".venv/bin", "scripts"):
            (root / path).mkdir(parents=True)
        for script in ("pool.py", "down.py", "up.py"):
            (root / "scripts" / script).touch()
        program = root / ".venv/bin/python"
        program.write_text(PROGRAM.format(python=sys.executable, host=host, release=release, folder=self.folder))
        program.chmod(0o755)

    def _says(self, host: str) -> dict[str, Any]:
        state = str(self.folder / host / "state/stacks/s")
        engines = [f"e-{host}"] if "engines" in ROLES[host] else []
        fleet = {"host": host, "roles": ROLES[host], "engines": engines, "hosts": ROLES}
        return {
            "releases.py": {"running": NEW, "cut_off": None, "state": state, "fleet": fleet},
            "rollback.py": {"release": OLD, "before": NEW},
            "fleet_host.py": {
                "done": [], "deploy": {"of": host}, "files": {},
                "release": {"id": OLD, "name": "s", "state": state, "mounts": []},
            },
            "fleet_steps.py": {
                "batches": [
                    [{"action": "replace", "engine": f"e-{name}", "host": name, "seconds": 60, "parts": [], "least": 1}]
                    for name in ("a", "b")
                ],
                "hosts": {
                    name: {"roles": roles, "effects": {}, "retired": [], "running": True}
                    for name, roles in ROLES.items()
                },
            },
            "activate.py": {"done": [], "became_current": True, "kept": [OLD, NEW]},
            "pool.py": {"back": [], "out": {}},
            "up.py": {"done": []},
        }  # fmt: skip

    def play(self, plays: Sequence[Mapping[str, Any]], fails: Mapping[str, str] | None = None, **variables: Any) -> Ran:
        """Run plays. fails: a part of a call's line -> why it fails."""
        (self.folder / "log").write_text("")
        (self.folder / "fails").write_text(json.dumps(fails or {}))
        for host, says in self.says.items():
            (self.folder / host / "says").write_text(json.dumps(says))
        hosts = {host: {"stack_root": str(self.folder / host)} for host in ROLES}
        local = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "stack_state": str(self.folder / "state"),
            "stack_timeout": 60,
            **variables,
        }
        inventory = {"deploy_fleet": {"hosts": hosts}, "all": {"vars": local}}
        code, out = play(plays, inventory, self.folder)
        return Ran(code, out, (self.folder / "log").read_text().splitlines())


def plays_of(playbook: str) -> list[dict[str, Any]]:
    """The plays of a playbook and of those that it imports, without what changes the machine that they run on."""
    found = []
    for one in yaml.safe_load((ANSIBLE / f"playbooks/{playbook}.yml").read_text()):
        imported = one.get("ansible.builtin.import_playbook")
        if imported:
            found += plays_of(imported.removesuffix(".yml"))
            continue
        found.append({**one, "tasks": list(map(_harmless, one["tasks"])), "become": False, "gather_facts": False})
    return found


def _harmless(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """What would change this machine itself is not done; its role's variables stay known to the play."""
    part = task["ansible.builtin.import_role"]
    return {**task, "ansible.builtin.import_role": NOT_HERE.get(part["tasks_from"], part)}
