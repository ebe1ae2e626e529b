#!/usr/bin/python
"""What the tools of a GPU host say about its GPUs, links and versions, as they say it; changes nothing."""

from __future__ import annotations

import json
import os
import subprocess

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: node_state
short_description: Read what a GPU host's tools say
description:
  - Runs nvidia-smi, nv-fabricmanager, dcgmi, nvidia-ctk and systemctl to read; with O(diag) also DCGM's diagnostic.
options:
  diag:
    description: Level of DCGM's diagnostic to run, 0 for none. It needs idle GPUs.
    type: int
    default: 0
  diag_timeout:
    description: Seconds within which the diagnostic has to end.
    type: int
    default: 3600
author: vllm-onprem
"""
EXAMPLES = r"""
- name: Read what the tools say
  node_state:
  register: __state
"""
RETURN = r"""
state:
  description: Output by name; null where a tool is missing or fails.
  type: dict
  returned: always
"""

GPU_FIELDS = [
    "index", "uuid", "pci.bus_id", "name", "driver_version", "persistence_mode", "mig.mode.current", "ecc.mode.current",
    "ecc.errors.corrected.volatile.total", "ecc.errors.uncorrected.volatile.total", "clocks_event_reasons.active",
    "pcie.link.gen.max", "pcie.link.width.current",
]  # fmt: skip
REMAP_FIELDS = ["gpu_bus_id", "remapped_rows.correctable", "remapped_rows.uncorrectable", "remapped_rows.pending",
                "remapped_rows.failure"]  # fmt: skip
SERVICES = ["nvidia-persistenced", "nvidia-fabricmanager", "nvidia-dcgm", "docker"]


def run(command, timeout=60):
    """Output of a command; None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=timeout, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def rows(fields, query):
    text = run(["nvidia-smi", "--" + query + "=" + ",".join(fields), "--format=csv,noheader,nounits"])
    if text is None:
        return None
    return [dict(zip(fields, [cell.strip() for cell in line.split(",")])) for line in text.splitlines() if line.strip()]


def diagnostic(level, timeout):
    """DCGM's JSON whether or not tests failed: a failed test is its answer, an exit code is not."""
    try:
        done = subprocess.run(["dcgmi", "diag", "-r", str(level), "-j"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=timeout, check=False)  # fmt: skip
        return json.loads(done.stdout[done.stdout.index("{") :])
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def main():
    module = AnsibleModule(
        {"diag": {"type": "int", "default": 0}, "diag_timeout": {"type": "int", "default": 3600}},
        supports_check_mode=True,
    )
    active = subprocess.run(["systemctl", "is-active", *SERVICES], stdout=subprocess.PIPE, text=True, check=False)
    level = module.params["diag"]
    state = {
        "gpus": rows(GPU_FIELDS, "query-gpu"),
        "remapped_rows": rows(REMAP_FIELDS, "query-remapped-rows"),
        "nvlink": run(["nvidia-smi", "nvlink", "-s"]),
        "fabric_manager": run(["nv-fabricmanager", "--version"]),
        "dcgm": run(["dcgmi", "--version"]),
        "toolkit": run(["nvidia-ctk", "--version"]),
        "services": dict(zip(SERVICES, active.stdout.split())),
        "kernel": os.uname().release,
        "boot_id": open("/proc/sys/kernel/random/boot_id").read().strip(),
        "diag_level": level,
        "diag": diagnostic(level, module.params["diag_timeout"]) if level else None,
    }
    module.exit_json(changed=False, state=state)


if __name__ == "__main__":
    main()
