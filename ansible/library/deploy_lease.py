#!/usr/bin/python
"""A fleet held by one deploy at a time, by a file on one of its hosts; lost by time, so a dead holder loses it."""

from __future__ import annotations

import fcntl
import json
import os
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: deploy_lease
short_description: Hold a fleet while it is deployed to
description:
  - Takes the lease, or renews it. One that another holds is not taken before its time is over, unless that holder is
    named as dead.
  - The times are of this host's clock alone.
options:
  path:
    description: The lease's file.
    type: path
    required: true
  holder:
    description: Who takes it.
    type: str
    required: true
  seconds:
    description: How long it is held without being renewed.
    type: int
    default: 600
  dead:
    description: A holder who is known to be no more.
    type: str
    default: ""
  state:
    description: C(absent) gives it back, if it is this holder's.
    type: str
    choices: [present, absent]
    default: present
author: vllm-onprem
"""
EXAMPLES = r"""
- name: Hold the fleet for ten minutes
  deploy_lease:
    path: /var/lib/vllm-onprem/lease.json
    holder: controller/1234/5678
"""
RETURN = r"""
held:
  description: Whether this holder has it now.
  type: bool
  returned: always
holder:
  description: Who has it otherwise; empty without one.
  type: str
  returned: always
left:
  description: Seconds until it is lost.
  type: int
  returned: always
"""


def read(path):
    """(holder, end in seconds since 1970) of a lease; ('', 0) where there is none, or a damaged one."""
    try:
        with open(path) as file:
            document = json.load(file)
        return str(document["holder"]), float(document["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0.0


def may_take(held_by, until, holder, dead, now):
    """Whether a holder may take a lease that another may have."""
    return held_by in ("", holder) or until <= now or (bool(dead) and held_by == dead)


def write(path, holder, until):
    partial = path + ".partial"
    with open(partial, "w") as file:
        json.dump({"holder": holder, "until": until}, file)
    os.replace(partial, path)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "holder": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 600},
            "dead": {"type": "str", "default": ""},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if not module.check_mode:
        os.makedirs(os.path.dirname(asked["path"]), mode=0o755, exist_ok=True)
    lock_path = "/dev/null" if module.check_mode else asked["path"] + ".lock"
    with os.fdopen(os.open(lock_path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two who take it at once
        module.exit_json(changed=False, **answer(module.check_mode, **asked))


def answer(looking, path, holder, seconds, dead, state):
    """Take it, renew it or give it back: what is returned. It is no change that a person would want to hear of."""
    now = time.time()
    held_by, until = read(path)
    if state == "absent":
        if held_by == holder and not looking:
            os.unlink(path)
        return {"held": False, "holder": "", "left": 0}
    if not may_take(held_by, until, holder, dead, now):
        return {"held": False, "holder": held_by, "left": int(until - now) + 1}
    if not looking:
        write(path, holder, now + seconds)
    return {"held": True, "holder": holder, "left": seconds}


if __name__ == "__main__":
    main()
