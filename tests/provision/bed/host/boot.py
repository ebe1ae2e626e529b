#!/usr/bin/python3
"""What firmware and kernel of an 8xA100 server would do at boot: PCI devices, modules, settings under /proc and /sys.

A container shares the kernel of the machine that runs the tests, so everything that roles read or write there is laid
over with files of this host's own: nothing reaches the real kernel. /var/lib/bed/hardware.json says what is plugged in.
"""

import json
import os
import shutil
import struct
import subprocess
import uuid
from pathlib import Path

BED = Path("/run/bed")
HARDWARE = json.loads(Path("/var/lib/bed/hardware.json").read_text())
# Settings that the roles write: never the real ones.
OVERLAID = [
    "/proc/sys/vm/swappiness",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/zone_reclaim_mode",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/fs/file-max",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
]


def bind(source, target):
    subprocess.run(["mount", "--bind", source, target], check=True)


def pci_tree():
    """/sys/bus/pci/devices: vendor, device, class and the configuration space, as sysfs has them."""
    for device in HARDWARE["pci"]:
        folder = BED / "pci" / device["address"]
        folder.mkdir(parents=True)
        vendor, product = device["id"].split(":")
        (folder / "vendor").write_text(f"0x{vendor}\n")
        (folder / "device").write_text(f"0x{product}\n")
        (folder / "class").write_text(f"0x{device['class']}\n")
        config = bytearray(4096 if "acs" in device else 256)
        struct.pack_into("<HH", config, 0, int(vendor, 16), int(product, 16))
        config[9:12] = bytes.fromhex(device["class"])[::-1]
        if "acs" in device:  # PCIe 5.0, 7.7.8: capability 0x000d, its control register at offset 6
            struct.pack_into("<IHH", config, 0x100, 0x0001000D, 0x5F, device["acs"])
        (folder / "config").write_bytes(bytes(config))
    bind(BED / "pci", "/sys/bus/pci/devices")


def settings():
    for number, name in enumerate(OVERLAID):
        if not os.path.exists(name):
            continue
        copy = BED / f"setting-{number}"
        copy.write_text(Path(name).read_text())
        bind(copy, name)
    processor = Path("/sys/devices/system/cpu/cpu0")
    governor = BED / "cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("schedutil\n")
    bind(BED / "cpu0", processor)
    boot_id = BED / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    bind(boot_id, "/proc/sys/kernel/random/boot_id")


def firmware():
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/firmware"], check=True)
    variables = Path("/sys/firmware/efi/efivars")
    variables.mkdir(parents=True)
    state = b"\1" if HARDWARE["secure_boot"] else b"\0"
    (variables / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(b"\6\0\0\0" + state)


def modules():
    """The initramfs decides whether nouveau takes the cards before the NVIDIA driver can."""
    release = os.uname().release
    initrd = Path(f"/boot/initrd.img-{release}")
    blacklisted = initrd.is_file() and "blacklist nouveau" in initrd.read_text()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/module"], check=True)
    if HARDWARE["nouveau"] and not blacklisted:
        Path("/sys/module/nouveau").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/proc/driver"], check=True)
    subprocess.run(["/sbin/modprobe", "nvidia"], check=False)


def main():
    shutil.rmtree(BED, ignore_errors=True)
    BED.mkdir(parents=True)
    pci_tree()
    settings()
    firmware()
    modules()


main()
