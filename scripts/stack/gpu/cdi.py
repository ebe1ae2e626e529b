"""The Container Device Interface: which GPUs Docker can give to a container by name.

The NVIDIA Container Toolkit writes a specification with a device for each GPU, named by its index and by its UUID; this
project uses the UUID alone (cloud-native-docs, container-toolkit/cdi-support). Docker reads it from the folders that
`docker info` names as CDISpecDirs: the key is missing before Docker 25, the list empty where CDI is not switched on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stack.errors import Problem
from stack.yaml_input import parsed

KIND = "nvidia.com/gpu"
_NODE = re.compile(r"/dev/nvidia(\d+)")
_AGAIN = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` as root, or `systemctl restart nvidia-cdi-refresh`"


def uuid_of(name: str) -> str:
    """The UUID in the name by which a container gets a GPU; a plain UUID stays what it is."""
    return name.removeprefix(f"{KIND}=")


def problems(wanted: Collection[str], info: Mapping[str, Any], minors: Mapping[str, int]) -> Iterator[Problem]:
    """Why Docker could not give these GPUs (by UUID) to containers, or would give others.

    info: what Docker says of itself. minors: uuid -> N of its /dev/nvidiaN now.
    """
    if "CDISpecDirs" not in info:
        yield Problem(
            "device",
            f"Docker {info.get('ServerVersion', 'here')} does not know CDI, by which engines get their GPUs: install"
            " Docker Engine 28 from docs.docker.com/engine/install (Debian's own docker.io is older)",
        )
        return
    folders = info["CDISpecDirs"] or ()
    if not folders:
        yield Problem(
            "device",
            'CDI is off in Docker: put {"features": {"cdi": true}} into /etc/docker/daemon.json and restart Docker',
        )
        return
    known = nodes(folders)
    lost = sorted(set(wanted) - set(known))
    if lost:
        where = " and ".join(folders)
        yield Problem("device", f"GPU {', '.join(lost)} is in no CDI specification in {where}: {_AGAIN}")
    for uuid in sorted(set(wanted) & set(known)):
        now = minors.get(uuid)
        if now is not None and known[uuid] and now not in known[uuid]:
            said = ", ".join(f"/dev/nvidia{number}" for number in sorted(known[uuid]))
            yield Problem(
                "device",
                f"GPU {uuid} is /dev/nvidia{now} now and {said} in the CDI specification (GPUs were renumbered), so an"
                f" engine would get another one: {_AGAIN}",
            )


def nodes(folders: Sequence[str]) -> dict[str, frozenset[int]]:
    """Name of each NVIDIA device in these folders' specifications -> the N of its /dev/nvidiaN.

    A later folder goes before an earlier one, as in the CDI specification. What is not a specification is left out.
    """
    found: dict[str, frozenset[int]] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix in (".yaml", ".yml", ".json"):
                found |= _devices(path)
    return found


def _devices(path: Path) -> dict[str, frozenset[int]]:
    try:
        text = path.read_text()
        document = json.loads(text) if path.suffix == ".json" else parsed(text)
        if document["kind"] != KIND:
            return {}
        return {str(entry["name"]): _numbers(entry) for entry in document["devices"]}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}


def _numbers(entry: Mapping[str, Any]) -> frozenset[int]:
    listed = entry["containerEdits"].get("deviceNodes") or ()
    matches = (_NODE.fullmatch(str(node.get("hostPath") or node["path"])) for node in listed)
    return frozenset(int(match[1]) for match in matches if match)
