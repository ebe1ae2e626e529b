"""What gc may take: never what a stack needs or a way back would, and never what is not ours."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from stack import image_record
from stack.day2.unused import DAY, Ages, measure, unused
from stack.errors import StackError
from stack.images.choice import base_reference, built_reference
from stack.images.pins import load_pins
from stack.inputs import ROOT, Inputs, add_arguments, gather
from stack.models import lock as models_lock
from unit.conftest import WriteStack

OLD = time.time() - 40 * DAY
AGES = Ages()


@pytest.fixture
def found(write_stack: WriteStack, tmp_path: Path) -> Inputs:
    path = write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {hub: org/planned}}]\nimages: {source: build}\n"
        f"paths: {{state: {tmp_path}/state, build: {tmp_path}/build}}\n"
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return gather(parser.parse_args([str(path)]))


def engine(*tags: str, used: str = "", created: str = "2020-01-01T00:00:00Z") -> docker.DockerClient:
    """An engine that has these images, one of them in a container."""
    listed = [SimpleNamespace(id=tag, tags=[tag], attrs={"Created": created, "Size": 5}) for tag in tags]
    containers = [SimpleNamespace(attrs={"ImageID": used})] if used else []
    fake = SimpleNamespace(
        images=SimpleNamespace(list=lambda: listed), containers=SimpleNamespace(list=lambda **_: containers)
    )
    return cast(docker.DockerClient, fake)


def names(found: Inputs, client: docker.DockerClient | None = None, ages: Ages = AGES) -> list[str]:
    return [one.what for one in unused(found, found.plans(), ages, client or engine())]


def folder(path: Path, when: float = OLD) -> Path:
    """A folder with a file in it, both this old."""
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x" * 5000)
    for one in (path / "file", path):
        os.utime(one, (when, when))
    return path


def applied(found: Inputs, stack: str, tree: str = "live", **keys: Any) -> None:
    """Another stack's tree in the same state folder."""
    path = found.shared / "stacks" / stack / tree / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"engines": [], "images": {}, "cordoned": [], **keys}))


def fetched(found: Inputs, name: str, when: str = "2020-01-01T00:00:00Z") -> Path:
    found.shared.mkdir(exist_ok=True)
    models_lock.record(found.shared / "models.lock", name, {"source": "hub"})
    text = (found.shared / "models.lock").read_text()
    newest = max(line.split("'")[1] for line in text.splitlines() if "fetched:" in line)
    (found.shared / "models.lock").write_text(text.replace(newest, when))
    return folder(found.shared / "models" / name)


def test_nothing_is_unused_on_a_box_that_has_nothing(found: Inputs) -> None:
    assert names(found) == []


def test_only_old_images_that_this_project_brought_and_nothing_needs(found: Inputs) -> None:
    pins = load_pins(ROOT)
    found.shared.mkdir(parents=True)
    needed = built_reference(ROOT, pins, "nginx")
    base = base_reference(ROOT, "trixie")
    applied(found, "a", images={"nginx": "registry.example.org/nginx:1.30.0"})
    applied(found, "b", tree="previous", images={"nginx": "registry.example.org/nginx:1.29.0"})
    image_record.add(found.shared, ["vllm/vllm-openai:v0.30.0", "registry.example.org/nginx:1.30.0",
                                    "registry.example.org/nginx:1.29.0", "young:1.2.3"])  # fmt: skip
    known = json.loads((found.shared / "images-made.json").read_text())
    old = {name: OLD for name in known if name != "young:1.2.3"}
    (found.shared / "images-made.json").write_text(json.dumps({**known, **old}))
    client = engine(
        needed, base, "vllm-onprem/nginx:1.29.0-0123456789ab", "vllm-onprem/used:1-0123456789ab",
        "vllm/vllm-openai:v0.30.0", "registry.example.org/nginx:1.30.0", "registry.example.org/nginx:1.29.0",
        "young:1.2.3", "somebodys:1.0", used="vllm-onprem/used:1-0123456789ab",
    )  # fmt: skip
    assert names(found, client) == ["vllm-onprem/nginx:1.29.0-0123456789ab", "vllm/vllm-openai:v0.30.0"]
    assert names(found, client, Ages(days=50_000)) == []


def test_what_a_release_that_is_kept_needs_stays(found: Inputs) -> None:
    pins = load_pins(ROOT)
    found.shared.mkdir(parents=True)
    model, adapter = fetched(found, "org--before/main"), fetched(found, "org--adapter/main")
    gone = fetched(found, "org--gone/main")
    engines = [{"model_dir": str(model), "adapter_dirs": [str(adapter)], "image": "sha256:engine", "name": "e"}]
    applied(found, "vllm-onprem", "releases/0123456789abcdef", engines=engines, images={"nginx": "nginx:1.29.0"})
    image_record.add(found.shared, ["nginx:1.29.0", "nginx:1.28.0"])
    known = json.loads((found.shared / "images-made.json").read_text())
    (found.shared / "images-made.json").write_text(json.dumps(dict.fromkeys(known, OLD)))
    client = engine("nginx:1.29.0", "nginx:1.28.0", built_reference(ROOT, pins, "nginx"))
    # of an archive: the plan has the ID, Docker the tag that the archive gave it
    carried: Any = SimpleNamespace(
        id="sha256:engine", tags=["vllm-onprem/vllm-cpu:0.31.0-0123456789ab"],
        attrs={"Created": "2020-01-01T00:00:00Z", "Size": 5},
    )  # fmt: skip
    client.images.list().append(carried)
    assert names(found, client) == ["nginx:1.28.0", str(gone)]


def test_models_that_a_stack_names_or_that_no_fetch_brought_stay(found: Inputs) -> None:
    gone, planned = fetched(found, "org--gone/main"), fetched(found, "org--planned/unpinned")
    others, cordoned = fetched(found, "org--others/main"), fetched(found, "org--cordoned/main")
    by_hand = folder(found.shared / "models/by-hand")
    engines: dict[str, Any] = {"engines": [{"model_dir": str(others), "image": "i", "name": "e"}],
               "cordoned": [{"model_dir": str(cordoned), "image": "i", "name": "e"}]}  # fmt: skip
    applied(found, "another", **engines)
    assert names(found) == [str(gone)]
    young = fetched(found, "org--new/main", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    assert str(young) not in names(found)
    assert planned.exists()
    assert by_hand.exists()


def test_a_half_fetched_model_is_left_alone_for_a_day(found: Inputs) -> None:
    old = folder(found.shared / "models/org--m/main.0123.partial", time.time() - 1.5 * DAY)
    folder(found.shared / "models/org--n/main.0123.partial", time.time() - 0.5 * DAY)
    assert names(found) == [str(old)]


def test_trees_of_hosts_that_are_gone(found: Inputs) -> None:
    for host, project in (("localhost", "vllm-onprem"), ("node-9", "vllm-onprem"), ("node-8", "another")):
        path = folder(found.build / host)
        (path / "plan.json").write_text(json.dumps({"project": project}))
        os.utime(path / "plan.json", (OLD, OLD))
        os.utime(path, (OLD, OLD))
    assert names(found) == [str(found.build / "node-9")]


def test_caches_of_engines_that_are_gone(found: Inputs) -> None:
    for name in ("engine-toy-0", "engine-applied-0", "engine-gone-0"):
        folder(found.state / "cache" / name)
    assert names(found) == [], "never applied: it is not known what it had"
    applied(found, "vllm-onprem", engines=[{"name": "engine-applied-0", "model_dir": "/m", "image": "i"}])
    assert names(found) == [str(found.state / "cache/engine-gone-0")]


def test_evidence_has_its_own_age(found: Inputs) -> None:
    old = folder(found.state / "evidence/engine-toy-0/2026-01-01")
    folder(found.state / "evidence/engine-toy-0/2026-02-01", time.time() - 20 * DAY)
    assert names(found) == [str(old)]
    assert len(names(found, ages=Ages(evidence=10))) == 2


def test_a_plan_that_cannot_be_read_stops_everything(found: Inputs) -> None:
    applied(found, "a")
    (found.shared / "stacks/a/live/plan.json").write_text("{}")
    with pytest.raises(StackError, match="not known what that stack needs"):
        names(found)


def test_sizes_are_of_the_disk_and_count_a_file_once(tmp_path: Path) -> None:
    folder(tmp_path / "x")
    one = measure(tmp_path / "x")[0]
    os.link(tmp_path / "x/file", tmp_path / "x/again")
    assert measure(tmp_path / "x")[0] == one
    assert one >= 5000
