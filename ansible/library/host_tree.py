#!/usr/bin/python
"""A rendered tree onto a host in one step for the network: what differs is written, what is stale goes."""

from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_tree
short_description: Make a folder hold exactly these files
description:
  - Files that an earlier run put there and that are not wanted any more are removed; any other file is left alone.
  - Every file is replaced in one step; the listing is written last.
  - Differences are shown by content, but for those of files that only machines read.
options:
  dest:
    description: The folder.
    type: path
    required: true
  files:
    description: Relative path to text. One of them is manifest.json, which lists the others.
    type: dict
    required: true
author: vllm-onprem
"""
EXAMPLES = r"""
- name: Send a tree
  host_tree:
    dest: /srv/tree
    files:
      manifest.json: '{"files": [{"path": "a"}]}'
      a: text
"""
RETURN = r"""
sent:
  description: Paths that were written, or would be.
  type: list
  returned: always
removed:
  description: Paths that were removed, or would be.
  type: list
  returned: always
"""

LISTING = "manifest.json"
FOR_MACHINES = (LISTING, "plan.json")


def text_of(path):
    """Text of a file; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def listed(dest):
    """Paths that an earlier run put there; none where its listing is missing or damaged."""
    try:
        return {entry["path"] for entry in json.loads(text_of(os.path.join(dest, LISTING)) or "{}")["files"]}
    except (ValueError, KeyError, TypeError):
        return set()


def differences(dest, files):
    """[(path, text before or None)] of all files that differ, the listing last."""
    old = {path: text_of(os.path.join(dest, path)) for path in files}
    return sorted(
        ((path, old[path]) for path in files if old[path] != files[path]),
        key=lambda each: (each[0] == LISTING, each[0]),
    )


def write(path, text):
    """Replace a file in one step."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    partial = os.path.join(os.path.dirname(path), "." + os.path.basename(path) + ".partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.chmod(partial, 0o644)
    os.replace(partial, path)


def shown(path, before, after):
    """One difference as Ansible prints it."""
    return {"before_header": path, "after_header": path, "before": before or "", "after": after}


def main():
    module = AnsibleModule(
        argument_spec={"dest": {"type": "path", "required": True}, "files": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    dest, files = module.params["dest"], module.params["files"]
    try:
        changes, stale = differences(dest, files), sorted(listed(dest) - set(files))
        diff = [shown(path, before, files[path]) for path, before in changes if path not in FOR_MACHINES]
        diff += [shown(path, text_of(os.path.join(dest, path)), "") for path in stale]
        if not module.check_mode:
            for path, _ in changes:
                write(os.path.join(dest, path), files[path])
            for path in stale:
                if os.path.exists(os.path.join(dest, path)):
                    os.unlink(os.path.join(dest, path))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or dest}: {error.strerror}. The tree that runs was not touched.")
    sent = [path for path, _ in changes]
    module.exit_json(changed=bool(sent or stale), sent=sent, removed=stale, diff=diff)


if __name__ == "__main__":
    main()
