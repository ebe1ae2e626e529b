"""The project's own Ansible modules, run without Ansible: arguments in, what a module answers out."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import subprocess
import sys
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from stacks import ROOT


def run(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a module answers, run in this process: a start costs it a quarter of a second."""
    module, answer = importlib.import_module(name), io.StringIO()
    with patch_module_args(options), contextlib.redirect_stdout(answer), pytest.raises(SystemExit):
        module.main()
    found: dict[str, Any] = json.loads(answer.getvalue())
    return found


def start(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The same of a process of its own, as Ansible starts it."""
    command = [sys.executable, str(ROOT / f"ansible/library/{name}.py"), json.dumps({"ANSIBLE_MODULE_ARGS": options})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
