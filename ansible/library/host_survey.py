#!/usr/bin/python
"""What is on a GPU host, read from /proc, /sys and the package database; changes nothing, and needs no NVIDIA tool."""

from __future__ import annotations

import glob
import http.client
import json
import os
import re
import socket
import subprocess

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_survey
short_description: Read what is on a GPU host
description:
  - Reads PCI devices, the loaded driver, packages, disk space and who uses the GPUs. Changes nothing.
options:
  root:
    description: Folder that stands for the file system's root; for tests.
    type: path
    default: /
author: vllm-onprem
"""
EXAMPLES = r"""
- name: Read what is on the host
  host_survey:
  register: __host
"""
RETURN = r"""
survey:
  description: Every finding by name; see docs/provisioning.md.
  type: dict
  returned: always
"""

PACKAGES = re.compile(
    r"^(nvidia|libnvidia|libcuda|cuda-drivers|cuda-keyring|kmod-nvidia|datacenter-gpu-manager|dcgm|docker|containerd"
    r"|linux-headers-|kernel-devel|linux-image-|unattended-upgrades|chrony)"
)
# They hold the device files open all the time and are no reason to wait.
DAEMONS = {
    "nvidia-persiste",
    "nvidia-persistenced",
    "nv-hostengine",
    "nv-fabricmanager",
    "nvidia-fabricma",
    "dcgm-exporter",
}
CAP_ACS = 0x000D


class Survey:
    """Reads below one root, so that tests can lay out a host as files."""

    def __init__(self, root):
        self.root = root

    def path(self, name):
        return os.path.join(self.root, name.lstrip("/"))

    def text(self, name):
        try:
            with open(self.path(name), errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def exists(self, name):
        return os.path.exists(self.path(name))

    def pci(self):
        """NVIDIA's devices, and bridges whose ACS is on: [{address, id, class, acs}]."""
        found = []
        for folder in sorted(glob.glob(self.path("/sys/bus/pci/devices/*"))):
            device = {"address": os.path.basename(folder)}
            for key, name in (("vendor", "vendor"), ("device", "device"), ("class", "class")):
                with open(os.path.join(folder, name)) as file:
                    device[key] = file.read().strip()[2:]
            acs = acs_control(os.path.join(folder, "config")) if device["class"].startswith("0604") else 0
            if device["vendor"] == "10de" or acs:
                found.append(
                    {
                        "address": device["address"],
                        "id": device["vendor"] + ":" + device["device"],
                        "class": device["class"],
                        "acs": acs != 0,
                    }
                )
        return found

    def driver(self):
        """The loaded driver: {version, modules}, empty when there is none."""
        match = re.search(
            r"NVRM version:.*?(Open Kernel Module)?.*?\s(\d+\.[\d.]+)\s", self.text("/proc/driver/nvidia/version")
        )
        if not match:
            return {}
        opened = "Open Kernel Module" in self.text("/proc/driver/nvidia/version")
        return {"version": match.group(2), "modules": "open" if opened else "proprietary"}

    def secure_boot(self):
        for path in glob.glob(self.path("/sys/firmware/efi/efivars/SecureBoot-*")):
            with open(path, "rb") as file:
                return file.read()[-1:] == b"\1"
        return False

    def free_mib(self, name):
        try:
            state = os.statvfs(self.path(name))
        except OSError:
            return None
        return state.f_bavail * state.f_frsize // 2**20

    def gpu_processes(self):
        """Processes that have a GPU open, but for NVIDIA's own daemons: [{pid, name}]."""
        found = []
        for folder in glob.glob(self.path("/proc/[0-9]*")):
            try:
                links = [os.readlink(path) for path in glob.glob(folder + "/fd/*")]
            except OSError:
                continue  # it has ended meanwhile
            name = self.text(os.path.relpath(folder, self.root) + "/comm").strip()
            if name not in DAEMONS and any(re.match(r"/dev/nvidia(\d|ctl|-uvm)", link) for link in links):
                found.append({"pid": int(os.path.basename(folder)), "name": name})
        return sorted(found, key=lambda process: process["pid"])

    def apt_sources(self):
        """Enabled lines and stanzas that name NVIDIA or Docker repositories: [{file, uri}]."""
        found = []
        files = [self.path("/etc/apt/sources.list"), *sorted(glob.glob(self.path("/etc/apt/sources.list.d/*")))]
        for path in files:
            text = re.sub(r"(?m)#.*$", "", self.text(os.path.relpath(path, self.root)))
            for uri in re.findall(r"(?:https?|file)://?[^\s\]]+", text):
                found.append({"file": "/" + os.path.relpath(path, self.root), "uri": uri.rstrip("/")})
        return found

    def packages(self):
        """Installed packages that matter here: {name: version with epoch and revision}."""
        if self.exists("/var/lib/dpkg/status"):
            command = ["dpkg-query", "--admindir=" + self.path("/var/lib/dpkg"), "--show"]
            command.append("--showformat=${db:Status-Status} ${Package} ${Version}\n")
        elif self.exists("/var/lib/rpm"):
            command = [
                "rpm",
                "--root",
                self.root,
                "-qa",
                "--qf",
                "installed %{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n",
            ]
        else:
            return {}
        listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows = [line.split() for line in listed.splitlines()]
        return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed" and PACKAGES.match(row[1])}

    def gpu_containers(self):
        """Names of running containers that were given a GPU, by whichever way; None when no engine answers."""
        path = self.path("/run/docker.sock")
        if not os.path.exists(path):
            return None
        try:
            listed = ask_docker(path, "/containers/json")
            details = [ask_docker(path, "/containers/" + each["Id"] + "/json") for each in listed]
        except (OSError, ValueError, http.client.HTTPException):
            return None
        return sorted(each["Name"].lstrip("/") for each in details if has_gpu(each))

    def updates_running(self):
        return any(
            "unattended-upgr" in self.text(os.path.relpath(path, self.root))
            and "shutdown" not in self.text(os.path.relpath(path, self.root))
            for path in glob.glob(self.path("/proc/[0-9]*/cmdline"))
        )

    def all(self):
        release = os.uname().release
        return {
            "kernel": release,
            "machine": os.uname().machine,
            "headers": self.exists("/lib/modules/" + release + "/build/Makefile"),
            "modules_of_kernel": self.exists("/lib/modules/" + release),
            "secure_boot": self.secure_boot(),
            "mok_key": any(map(self.exists, ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der"))),
            "boot_free_mib": self.free_mib("/boot"),
            "var_free_mib": self.free_mib("/var"),
            "run_install": self.exists("/usr/bin/nvidia-uninstall") or self.exists("/usr/bin/nvidia-installer"),
            "dgx_release": self.exists("/etc/dgx-release"),
            "reboot_pending": self.exists("/run/reboot-required"),
            "nouveau_loaded": self.exists("/sys/module/nouveau"),
            "updates_running": self.updates_running(),
            "updates_config": self.text("/etc/apt/apt.conf.d/50unattended-upgrades"),
            "updates_hold": self.text("/etc/apt/apt.conf.d/60vllm-onprem-nvidia"),
            "apt_sources": self.apt_sources(),
            "pci": self.pci(),
            "driver": self.driver(),
            "packages": self.packages(),
            "gpu_processes": self.gpu_processes(),
            "gpu_containers": self.gpu_containers(),
        }


def acs_control(path):
    """The ACS control register of a PCIe bridge (PCIe 5.0, 7.7.8); 0 without the capability."""
    try:
        with open(path, "rb") as file:
            config = file.read()
    except OSError:
        return 0
    at = 0x100
    while 0x100 <= at <= len(config) - 8:
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == CAP_ACS:
            return int.from_bytes(config[at + 6 : at + 8], "little")
        if header >> 20 <= at:
            break
        at = header >> 20
    return 0


def ask_docker(path, url):
    """JSON answer of the engine behind a Unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(path)
    connection.request("GET", url)
    answer = connection.getresponse()
    data = json.loads(answer.read())
    if answer.status != 200:
        raise ValueError(data)
    return data


def has_gpu(container):
    """Was a container given a GPU: by --gpus, by CDI, by the nvidia runtime or as a device file."""
    host = container.get("HostConfig") or {}
    requests = host.get("DeviceRequests") or []
    devices = [device.get("PathOnHost", "") for device in host.get("Devices") or []]
    return bool(
        host.get("Runtime") == "nvidia"
        or any(
            request.get("Driver") in ("nvidia", "cdi") or ["gpu"] in (request.get("Capabilities") or [])
            for request in requests
        )
        or any(path.startswith("/dev/nvidia") for path in devices)
    )


def main():
    module = AnsibleModule({"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    module.exit_json(changed=False, survey=Survey(module.params["root"]).all())


if __name__ == "__main__":
    main()
