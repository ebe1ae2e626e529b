#!/usr/bin/python
"""Which Docker engine a host has, what it was started with and how it is configured; changes nothing."""

from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: docker_engine
short_description: Read which Docker engine a host has
description:
  - Looks for the engine, its socket, its configuration and its process. Changes nothing and asks the engine nothing.
options:
  binaries:
    description: Where the engine may be; the first that is there counts.
    type: list
    elements: path
    default: [/usr/bin/dockerd, /usr/sbin/dockerd]
  socket:
    description: Its socket.
    type: path
    default: /run/docker.sock
  config:
    description: Its configuration.
    type: path
    default: /etc/docker/daemon.json
  pid_file:
    description: Where it writes its process id.
    type: path
    default: /run/docker.pid
author: vllm-onprem
"""
EXAMPLES = r"""
- name: Read which engine is there
  docker_engine:
  register: __engine
"""
RETURN = r"""
engine:
  description:
    - C(binary) (empty without one), C(socket) (is it there), C(config) (the file's object), C(config_error) (why it
      could not be read, or null), C(command_line) of the running engine (empty without one), and C(outdated), whether
      the engine runs and is older than its configuration.
  type: dict
  returned: always
"""


def read(path):
    """A file's text; '' when it is not there."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def changed_at(path):
    """Seconds since 1970; None when it is not there."""
    return os.stat(path).st_mtime if os.path.exists(path) else None


def configuration(text):
    """(object, None), or ({}, what is wrong with it). An empty file is an empty object."""
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError as error:
        return {}, str(error)
    return (found, None) if isinstance(found, dict) else ({}, "it is not an object")


def engine(binaries, socket, config, pid_file):
    options, error = configuration(read(config))
    # The engine may have died and left its file behind.
    pid = read(pid_file).strip()
    command_line = read("/proc/" + pid + "/cmdline").split("\0") if pid else []
    started, written = changed_at(pid_file), changed_at(config)
    return {
        "binary": next((path for path in binaries if os.path.exists(path)), ""),
        "socket": os.path.exists(socket),
        "config": options,
        "config_error": error,
        "command_line": [word for word in command_line if word],
        "outdated": started is not None and written is not None and written > started,
    }


def main():
    path = {"type": "path"}
    module = AnsibleModule(
        {
            "binaries": {"type": "list", "elements": "path", "default": ["/usr/bin/dockerd", "/usr/sbin/dockerd"]},
            "socket": {"default": "/run/docker.sock", **path},
            "config": {"default": "/etc/docker/daemon.json", **path},
            "pid_file": {"default": "/run/docker.pid", **path},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, engine=engine(**module.params))


if __name__ == "__main__":
    main()
