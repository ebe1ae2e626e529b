"""Stub packages with the real names, versions and relations; what is in them is the bed's.

Sources of the relations: NVIDIA/apt-packaging-fabric-manager and apt-packaging-libnvidia-nscq (debian/templates/
control.in), nvidia-container-toolkit (packaging/debian/control), the driver installation guide (package names of
Debian and Ubuntu, pinning packages), NVIDIA's apt index as quoted by projects that install DCGM (`1:4.6.1-1`, exact
dependencies among its packages). Where only a name was found, the relation is marked constructed.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

TOOLS = Path(__file__).parent / "tools"
KERNEL = os.uname().release
HEADERS = f"linux-headers-{KERNEL}"
# Real releases (gpu-driver-container's versions.mk, public bug reports), but for the last of 580 and 620: constructed.
DRIVERS = ("570.195.03", "580.159.03", "580.178.04", "580.190.01", "595.91.07", "620.10.01")
TOOLKITS = ("1.19.0", "1.20.0")
DCGM = "4.6.1"


@dataclass(frozen=True)
class Package:
    """A package to be. files: path -> text; scripts: maintainer script -> text; a `#!` makes a file executable."""

    name: str
    version: str
    relations: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    suite: str = "cuda"


def tool(name: str, version: str) -> str:
    return (TOOLS / name).read_text().replace("@VERSION@", version)


def unit(description: str, start: str, extra: str = "", service: str = "") -> str:
    return (
        f"[Unit]\nDescription={description}\n{extra}\n[Service]\nExecStart={start}\n{service}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def started(name: str) -> dict[str, str]:
    """Maintainer scripts of a package with a service, as debhelper writes them (shortened)."""
    return {
        "postinst": f"#!/bin/sh\nset -e\nsystemctl daemon-reload\nsystemctl enable {name} || true\n"
        f"systemctl restart {name} || true\n",
        "prerm": f"#!/bin/sh\nsystemctl stop {name} || true\n",
    }


def dkms(flavour: str, version: str) -> str:
    """DKMS builds for the running kernel and fails without its headers, as the package then does."""
    folder = "/lib/modules/$(uname -r)/updates/dkms"
    return (
        '#!/bin/sh\nset -e\n[ "$1" = configure ] || exit 0\n'
        "if [ ! -e /lib/modules/$(uname -r)/build/Makefile ]; then\n"
        '  echo "Error! Your kernel headers for kernel $(uname -r) cannot be found." >&2; exit 1\nfi\n'
        f'mkdir -p "{folder}"\necho "{version} {flavour}" >"{folder}/nvidia.ko"\n'
    )


def driver(version: str) -> list[Package]:
    """Debian's side of NVIDIA's repository. Relations constructed: names from the installation guide."""
    full, branch = f"{version}-1", version.split(".", maxsplit=1)[0]
    old = f"-{branch}" if int(branch) < 580 else ""  # names lost the branch in 580
    same = f"(= {full})"
    found = [
        Package(
            f"nvidia-driver-pinning-{suffix}",
            full if suffix == version else f"{branch}-1",
            {"Provides": "nvidia-driver-pinning", "Conflicts": "nvidia-driver-pinning"},
            {
                f"/etc/apt/preferences.d/nvidia-driver-pinning-{suffix}": (
                    f"Package: nvidia-driver* nvidia-kernel* nvidia-persistenced nvidia-modprobe libcuda1 libnvidia-*\n"
                    f"Pin: version {suffix}*\nPin-Priority: 1000\n"
                )
            },
        )
        for suffix in (version, branch)
    ]
    found += [
        Package("libcuda1", full, files={"/usr/share/bed/libcuda": version}),
        Package("libnvidia-ml1", full),
        Package("nvidia-modprobe", full),
        Package(
            "nvidia-persistenced",
            full,
            files={
                "/lib/systemd/system/nvidia-persistenced.service": unit(
                    "NVIDIA Persistence Daemon", "/bin/sleep infinity", "Wants=syslog.target"
                )
            },
            scripts=started("nvidia-persistenced"),
        ),
        Package(
            "nvidia-driver-cuda",
            full,
            # >=, not =, on the two daemons: how they drift from the driver (gpu-driver-container#899)
            {
                "Depends": f"libcuda1 {same}, libnvidia-ml1 {same}, nvidia-persistenced (>= {branch}), "
                f"nvidia-modprobe (>= {branch}), nvidia-kernel-open-dkms {same} | nvidia-kernel-dkms {same}"
            },
            {"/usr/bin/nvidia-smi": tool("nvidia-smi", version)},
        ),
        Package(f"libnvidia-nscq{old}", full, {"Provides": "nscq-api"}),
        Package(
            f"nvidia-fabricmanager{old}",
            f"{version}-2" if branch == "595" else full,  # revisions vary: a role must look, not guess
            {"Depends": "libc6 (>= 2.2.1)"},  # and systemd-coredump, left out: 30 MB that nothing here uses
            {
                "/usr/bin/nv-fabricmanager": tool("nv-fabricmanager", version),
                # After=multi-user.target: what Azure's images had to take out (setup_sku_customizations.sh)
                "/lib/systemd/system/nvidia-fabricmanager.service": unit(
                    "NVIDIA fabric manager service",
                    "/usr/bin/nv-fabricmanager -c /usr/share/nvidia/nvswitch/fabricmanager.cfg",
                    "After=network-online.target multi-user.target\nRequires=network-online.target",
                ),
            },
            started("nvidia-fabricmanager"),
        ),
    ]
    flavours = ["open"] if int(branch) >= 620 else ["open", "proprietary"]
    for flavour in flavours:
        name, other = ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms")[:: 1 if flavour == "open" else -1]
        found.append(
            Package(
                name,
                full,
                {"Conflicts": other, "Provides": "nvidia-kernel"},
                {f"/usr/src/nvidia-{version}-{flavour}/dkms.conf": f'PACKAGE_VERSION="{version}"\n'},
                {"postinst": dkms(flavour, version)},
            )
        )
    return found


def toolkit(version: str) -> list[Package]:
    full = f"{version}-1"
    refresh = "/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml"
    return [
        Package(
            "nvidia-container-toolkit",
            full,
            {
                "Depends": f"nvidia-container-toolkit-base (= {full}), libnvidia-container-tools (>= {full}), "
                "libnvidia-container-tools (<< 2.0.0)"
            },
            {"/usr/bin/nvidia-container-runtime": '#!/bin/sh\nexec runc "$@"\n'},
            suite="toolkit",
        ),
        Package(
            "nvidia-container-toolkit-base",
            full,
            files={
                "/usr/bin/nvidia-ctk": tool("nvidia-ctk", version),
                "/etc/systemd/system/nvidia-cdi-refresh.service": unit(
                    "Refresh NVIDIA CDI specification file",
                    refresh,
                    "ConditionPathExists=/usr/bin/nvidia-ctk",
                    "Type=oneshot\nRemainAfterExit=no",
                ),
                "/etc/systemd/system/nvidia-cdi-refresh.path": (
                    "[Unit]\nDescription=Trigger CDI refresh on NVIDIA driver install / uninstall events\n\n"
                    "[Path]\nPathChanged=/lib/modules/%v/updates/dkms\n\n[Install]\nWantedBy=multi-user.target\n"
                ),
            },
            scripts={
                "postinst": "#!/bin/sh\nset -e\nsystemctl daemon-reload\n"
                "systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service || true\n"
            },
            suite="toolkit",
        ),
        Package("libnvidia-container-tools", full, {"Depends": f"libnvidia-container1 (>= {full})"}, suite="toolkit"),
        Package("libnvidia-container1", full, suite="toolkit"),
    ]


def dcgm(version: str) -> list[Package]:
    full = f"1:{version}-1"
    core = f"datacenter-gpu-manager-4-core (= {full})"
    return [
        Package(
            "datacenter-gpu-manager-4-core",
            full,
            {"Conflicts": "datacenter-gpu-manager", "Replaces": "datacenter-gpu-manager"},
            {
                "/usr/bin/dcgmi": tool("dcgmi", version),
                "/lib/systemd/system/nvidia-dcgm.service": unit("NVIDIA DCGM service", "/bin/sleep infinity"),
            },
        ),
        Package("datacenter-gpu-manager-4-proprietary", full, {"Depends": core}),
        *(
            Package(f"datacenter-gpu-manager-4-{part}cuda{cuda}", full, {"Depends": core})
            for part in ("", "proprietary-")
            for cuda in (12, 13)
        ),
        Package("datacenter-gpu-manager", "1:3.3.9-1", {"Conflicts": "datacenter-gpu-manager-4-core"}),
    ]


def docker_ce(version: str) -> list[Package]:
    """Names and form of versions as on download.docker.com; empty: the engine of the bed is Debian's real one."""
    full = f"5:{version}-1~debian.12~bookworm"
    return [
        Package("docker-ce", full, {"Depends": "containerd.io (>= 1.7.27), docker-ce-cli", "Conflicts": "docker.io"}),
        Package("docker-ce-cli", full, {"Conflicts": "docker.io"}),
        Package("containerd.io", "1.7.28-1~debian.12~bookworm", {"Conflicts": "containerd, runc"}),
    ]


def headers() -> Package:
    """The headers of the kernel that the tests run on, which no Debian release has."""
    source = f"/usr/src/linux-headers-{KERNEL}"
    link = f"#!/bin/sh\nset -e\nmkdir -p /lib/modules/{KERNEL}\nln -sfn {source} /lib/modules/{KERNEL}/build\n"
    return Package(
        HEADERS, "1-1", files={f"{source}/Makefile": "# constructed\n"}, scripts={"postinst": link}, suite="kernel"
    )


def all_packages() -> list[Package]:
    found = [headers(), *dcgm(DCGM), *docker_ce("28.5.2")]
    for version in DRIVERS:
        found += driver(version)
    for version in TOOLKITS:
        found += toolkit(version)
    return found


def build(package: Package, pool: Path) -> Path:
    """Makes the .deb; returns its path."""
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        relations = "".join(f"{key}: {value}\n" for key, value in package.relations.items())
        control = root / "DEBIAN"
        control.mkdir()
        (control / "control").write_text(
            f"Package: {package.name}\nVersion: {package.version}\nArchitecture: amd64\n"
            f"Maintainer: test bed <root@localhost>\n{relations}Description: stub of the test bed\n"
        )
        for name, text in {
            **package.files,
            **{f"/DEBIAN/{name}": text for name, text in package.scripts.items()},
        }.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        target = pool / f"{package.name}_{package.version.replace(':', '%3a')}_amd64.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


def build_all(packages: list[Package], pool: Path) -> None:
    with ThreadPoolExecutor(2) as workers:
        list(workers.map(lambda package: build(package, pool), packages))
