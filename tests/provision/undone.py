"""What the roles manage, each with how to undo it by hand and how to see that it is as it was."""

from __future__ import annotations

from pathlib import Path

import yaml


def undone() -> list[dict[str, str]]:
    """Cases of undone.yaml: what, undo, ask."""
    found = []
    for case in yaml.safe_load(Path(__file__).with_name("undone.yaml").read_text()):
        if file := case.get("file"):
            found.append({"what": file, "undo": f"rm {file}", "ask": f"cat {file}"})
        elif service := case.get("service"):
            ask = f"systemctl is-active {service}; systemctl is-enabled {service}"
            found.append({"what": service, "undo": f"systemctl disable --now {service}", "ask": ask})
        else:
            found.append(case)
    return found
