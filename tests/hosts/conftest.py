"""Checks of a user's own hosts: pytest tests/hosts --hosts=ansible://gpu_nodes --ansible-inventory=FILE."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STACK_ROOT = os.environ.get("STACK_ROOT") or "/opt/vllm-onprem"
CURRENT = f"{STACK_ROOT}/current"


@pytest.fixture(scope="session")
def lock() -> dict[str, Any]:
    """The lock that the hosts were provisioned with: PROVISION_LOCK=file, or the project's own."""
    path = Path(os.environ.get("PROVISION_LOCK") or ROOT / "ansible/provision.lock.yml")
    found: dict[str, Any] = yaml.safe_load(path.read_text())["provision_lock"]
    return found


@pytest.fixture
def report(host: Any) -> dict[str, Any]:
    """The node report, as the last run of provision.yml or verify.yml left it."""
    found: dict[str, Any] = json.loads(host.file("/var/lib/vllm-onprem/node_report.json").content_string)
    return found


@pytest.fixture
def pci(host: Any) -> list[tuple[str, str]]:
    """(vendor:device, class) of every NVIDIA device, from the bus and not from any tool of NVIDIA's."""
    paths = "/sys/bus/pci/devices/*"
    listed = host.check_output(f"cat {paths}/vendor; echo; cat {paths}/device; echo; cat {paths}/class")
    vendors, devices, classes = (part.split() for part in listed.split("\n\n"))
    rows = zip(vendors, devices, classes, strict=True)
    return [(f"{vendor[2:]}:{device[2:]}", kind[2:]) for vendor, device, kind in rows if vendor == "0x10de"]


@pytest.fixture
def state(host: Any) -> str:
    """The stack's own folder on the host."""
    if not host.file(f"{CURRENT}/stack.yaml").exists:
        pytest.skip(f"no stack in {STACK_ROOT}: `make deploy`")
    document = yaml.safe_load(host.file(f"{CURRENT}/stack.yaml").content_string)
    return f"{document['paths']['state']}/stacks/{document.get('name', 'vllm-onprem')}"


@pytest.fixture
def plan(host: Any, state: str) -> dict[str, Any]:
    """What is applied."""
    found: dict[str, Any] = json.loads(host.file(f"{state}/live/plan.json").content_string)
    return {"fleet": None, **found}


@pytest.fixture
def roles(plan: dict[str, Any]) -> list[str]:
    """What the host does: all of it, where it is alone."""
    return list(plan["fleet"]["roles"]) if plan["fleet"] else ["engines", "gateway", "observability"]


@pytest.fixture
def containers(host: Any, plan: dict[str, Any]) -> dict[str, Any]:
    """service -> what `docker inspect` says."""
    label = f"label=com.docker.compose.project={plan['project']}"
    names = host.check_output(f"docker ps --all --quiet --filter {label}").split()
    found = json.loads(host.check_output(f"docker inspect {' '.join(names)}"))
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}
