"""A host without a way out, from one folder that mirror.yml gathered: provisioned, deployed, its driver changed under
the stack. In this order. Long: make test-hosts-matrix.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.bed import STACK, STATE, StackHost
from deploy.bundle import bundle
from provision.bed.hosts import Bed, Host
from provision.bed.playbooks import NEW, NEXT, OLD, ROOT, Run, driver, good
from provision.bed.repository import Repositories
from provision.conftest import Play
from stack.models.toy import make_toy_model
from unit.hub_standin import PINNED

MIRROR = "/srv/vllm-onprem-mirror"
HUB_PORT = 8099
# The stand-in for the hub, in the one host that has a way out.
SERVE = f"""
import time
from pathlib import Path
from hub_standin import PINNED, Hub, serve
files = {{path.name: path.read_bytes() for path in Path("/srv/hub/files").iterdir()}}
with serve(Hub(files, commit=PINNED, port={HUB_PORT})):
    time.sleep(36000)
"""
PROGRAM = "/opt/vllm-onprem/current"
Variables = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def mirror(repositories: Repositories) -> Path:
    """The folder to be, which the bed's web server serves too."""
    folder = repositories.folder / "mirror"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def builder(bed: Bed, mirror: Path, run_play: Play, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a way out: to the repositories, to a hub, and to images and wheels, here in a folder."""
    hub = tmp_path_factory.mktemp("hub")
    make_toy_model(hub / "files")
    shutil.copy(ROOT / "tests/unit/hub_standin.py", hub)
    (hub / "serve.py").write_text(SERVE)
    made = bed.host("builder", volumes=[f"{bundle()}:/srv/bundle:ro", f"{mirror}:{MIRROR}", f"{hub}:/srv/hub:ro"])
    made.container.exec_run(["python3", "/srv/hub/serve.py"], detach=True)
    good(run_play("docker.yml", made))
    yield made
    bed.remove(made)


@pytest.fixture(scope="module")
def host(bed: Bed) -> Iterator[StackHost]:
    made = bed.host("closed", closed=True)
    yield StackHost(made.container)
    bed.remove(made)


@pytest.fixture(scope="module")
def stack(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Variables:
    """Variables of a run. gathers: of the host that gathers, and not of one that gets what was gathered."""
    folder = tmp_path_factory.mktemp("stack")
    (model,) = STACK["models"]
    document = {**STACK, "models": [{**model, "source": {"hub": "o/m", "revision": PINNED}}]}
    document["hub"] = {"mirror": f"http://127.0.0.1:{HUB_PORT}"}
    for name, archive in (("gathers", "/srv/bundle/images.tar"), ("gets", "images.tar")):
        images = {"source": "archive", "archive": archive}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**document, "images": images}))
    url = f"{bed.closed_url}/mirror"

    def variables(gathers: bool = False) -> dict[str, Any]:
        if gathers:
            return {
                "stack_build": str(folder / "build"),
                "stack_wheels": "/srv/bundle/wheels",
                "mirror_stack_file": str(folder / "gathers.yaml"),
                "mirror_images_source": "archive",
            }
        return {
            "stack_build": str(folder / "build"),
            "stack_file": str(folder / "gets.yaml"),
            "stack_images_url": f"{url}/images.tar",
            "stack_wheels": f"{url}/wheels/",
            "model_store_url": f"{url}/models",
            "package_sources_mirror_url": url,
            "package_sources_mirror_key": f"{url}/key.asc",
        }

    return variables


def loaded(host: Host) -> str:
    return host.read("/proc/driver/nvidia/version")


def smoke(host: Host) -> str:
    return host.sh(f"{PROGRAM}/.venv/bin/python {PROGRAM}/scripts/smoke.py {PROGRAM}/stack.yaml")


def at_boot(host: Host) -> str:
    return host.run("systemctl", "is-enabled", "vllm-onprem-stack").out.strip()


def order(run: Run, *endings: str) -> list[str]:
    """Which of these tasks ran, in the order in which they did."""
    return [ending for _, name, _ in run.tasks for ending in endings if name.endswith(ending)]


def test_one_folder_holds_packages_images_models_and_wheels(
    builder: Host, mirror: Path, run_play: Play, stack: Variables
) -> None:
    good(run_play("mirror.yml", builder, lock=driver(OLD), **stack(gathers=True)))
    assert good(run_play("mirror.yml", builder, lock=driver(OLD), **stack(gathers=True))).changed() == []
    builder.sh(f"cd {MIRROR} && sha256sum --check --quiet SHA256SUMS")
    sums = (mirror / "SHA256SUMS").read_text()
    for what in ("images.tar", f"models/o--m/{PINNED}.tar", "wheels/", "nvidia-driver-cuda", "python3-venv"):
        assert what in sums


def test_a_host_without_a_way_out_is_provisioned_and_serves(host: StackHost, run_play: Play, stack: Variables) -> None:
    assert host.run("python3", "-c", "import socket; socket.create_connection(('example.com', 80), 3)").code != 0
    run = good(run_play("site.yml", host, lock=driver(OLD), **stack()))
    print(f"provisioned and deployed without a way out: {run.seconds:.0f} s, n=1")
    assert host.json("/var/lib/vllm-onprem/node_report.json")["drift"] == []
    assert OLD in loaded(host)
    assert f"models/o--m/{PINNED}:/model:ro" in host.read(f"{STATE}/live/compose.yaml")
    assert "The stack serves." in smoke(host)
    assert good(run_play("site.yml", host, lock=driver(OLD), **stack())).changed() == []


def test_a_driver_is_upgraded_under_the_stack(host: StackHost, builder: Host, run_play: Play, stack: Variables) -> None:
    good(run_play("mirror.yml", builder, lock=driver(NEW), **stack(gathers=True)))
    before = host.containers()
    run = good(run_play("upgrade_driver.yml", host, lock=driver(NEW), **stack()))
    print(f"driver upgraded under the stack: {run.seconds:.0f} s, n=1")
    steps = ("Finish the requests in flight, then stop", "Reboot", "Write the report", "Start it and prove it")
    assert order(run, *steps) == list(steps)
    assert NEW in loaded(host)
    assert host.json("/var/lib/vllm-onprem/node_report.json")["drift"] == []
    assert set(host.containers()) == set(before)
    assert at_boot(host) == "enabled"
    assert "The stack serves." in smoke(host)


def test_an_upgrade_that_fails_leaves_the_host_drained_and_goes_back_from_kept_packages(
    host: StackHost, builder: Host, run_play: Play, stack: Variables
) -> None:
    good(run_play("mirror.yml", builder, lock=driver(NEXT), **stack(gathers=True)))
    host.hardware(lambda hardware: hardware["gpus"][0].update({"diag": "Fail"}))
    run = run_play("upgrade_driver.yml", host, lock=driver(NEXT), **stack())
    assert run.code == 2
    assert "DCGM diagnostic level 2: software failed" in run.failures()
    assert order(run, "Start it and prove it") == []
    assert (host.containers(), at_boot(host)) == ({}, "disabled")
    host.boot()
    assert host.containers() == {}, "drained over a reboot too"

    host.hardware(lambda hardware: hardware["gpus"][0].update({"diag": "Pass"}))
    # no repository in reach
    host.sh("rm /etc/apt/sources.list.d/*; rm -rf /var/lib/apt/lists/*; mkdir -p /var/lib/apt/lists/partial")
    back = good(run_play("rollback_driver.yml", host, lock=driver(NEXT), **stack()))
    print(f"back from kept packages: {back.seconds:.0f} s, n=1")
    assert NEW in loaded(host)
    assert at_boot(host) == "enabled"
    assert "The stack serves." in smoke(host)
