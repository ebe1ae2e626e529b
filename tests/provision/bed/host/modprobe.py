#!/usr/bin/python3
"""modprobe of the bed: loads the module that DKMS last built, unless nouveau holds the cards."""

import os
import sys
from pathlib import Path

wanted = [name for name in sys.argv[1:] if not name.startswith("-")]
if wanted[:1] != ["nvidia"] and wanted[:1] != ["nvidia-uvm"]:
    sys.exit(0)
built = Path(f"/lib/modules/{os.uname().release}/updates/dkms/nvidia.ko")
loaded = Path("/proc/driver/nvidia/version")
if not built.is_file():
    sys.exit(f"modprobe: FATAL: Module nvidia not found in directory /lib/modules/{os.uname().release}")
if Path("/sys/module/nouveau").exists():
    sys.exit("modprobe: ERROR: could not insert 'nvidia': No such device")
if loaded.is_file():
    sys.exit(0)
version, flavour = built.read_text().split()
loaded.parent.mkdir(parents=True, exist_ok=True)
# The two forms that the kernel modules print (nv-procfs.c of open-gpu-kernel-modules; any bug report of either).
kind = "NVIDIA UNIX Open Kernel Module for x86_64" if flavour == "open" else "NVIDIA UNIX x86_64 Kernel Module"
loaded.write_text(f"NVRM version: {kind}  {version}  Release Build  (constructed)\nGCC version:  gcc version 12.2.0\n")
switches = Path("/proc/driver/nvidia-nvswitch/devices")
switches.mkdir(parents=True, exist_ok=True)
number = 0
for device in sorted(Path("/sys/bus/pci/devices").iterdir()):
    if (device / "vendor").read_text().strip() != "0x10de":
        continue
    if (device / "class").read_text().startswith("0x0680"):
        (switches / device.name).mkdir(exist_ok=True)
    else:
        Path(f"/dev/nvidia{number}").touch()
        number += 1
Path("/dev/nvidiactl").touch()
