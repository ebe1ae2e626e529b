"""What nothing needs any more: images, models, rendered trees, caches, evidence. Looking only.

Needed is what any stack of the state folder has applied or kept to go back to, and what this stack file plans. What
is not ours is never named: images that this project did not bring, models that no record of a fetch knows.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docker

from stack import image_record
from stack.errors import StackError
from stack.images.choice import BUILT, base_reference, built_reference
from stack.images.pins import load_pins
from stack.inputs import ROOT, Inputs
from stack.models import lock as models_lock
from stack.models.parts import parts_of
from stack.plan.types import Plan

DAY = 86400.0
PARTIAL_DAYS = 1.0
Kind = Literal["image", "model", "build", "cache", "evidence"]
KINDS: tuple[Kind, ...] = ("image", "model", "build", "cache", "evidence")


@dataclass(frozen=True)
class Unused:
    """One thing that may go. what: a path or an image's reference; size in bytes; days since it was last of use."""

    kind: Kind
    what: str
    size: int
    days: float
    why: str


@dataclass(frozen=True)
class Ages:
    """After how many days something unused may go; evidence of wedged engines has its own."""

    days: float = 7.0
    evidence: float = 30.0


def unused(found: Inputs, plans: Sequence[Plan], ages: Ages, client: docker.DockerClient) -> Iterator[Unused]:
    """Everything that may go, in the order of KINDS. Raises StackError where it cannot be known what is needed."""
    kept = applied_plans(found.shared) + [plan.as_dict() for plan in plans]
    now = time.time()
    yield from unused_images(found, kept, ages, client)
    yield from unused_models(found, kept, ages, now)
    yield from _builds(found, plans, ages, now)
    yield from _caches(found, plans, ages, now)
    yield from _evidence(found, ages, now)


def applied_plans(shared: Path) -> list[dict[str, Any]]:
    """Every plan.json that a stack of the state folder keeps: applied, checked, or kept to go back to."""
    files = sorted({*shared.glob("stacks/*/*/plan.json"), *shared.glob("stacks/*/*/*/plan.json")})
    found = []
    for path in files:
        try:
            plan = json.loads(path.read_text())
            if not all(key in plan for key in ("engines", "images")):
                raise ValueError("it lacks engines or images")
        except (OSError, ValueError, TypeError) as error:
            raise StackError(f"{path}: cannot be read ({error}), so it is not known what that stack needs") from None
        found.append(plan)
    return found


def unused_images(
    found: Inputs, kept: Sequence[dict[str, Any]], ages: Ages, client: docker.DockerClient
) -> Iterator[Unused]:
    """Images that this project pulled or built, that no plan names, no container has, and nothing here builds."""
    pins = load_pins(ROOT)
    needed = {ref for plan in kept for ref in plan["images"].values()} | {*found.images.values()}
    needed |= {engine["image"] for plan in kept for engine in (*plan["engines"], *plan.get("cordoned", ()))}
    needed |= {built_reference(ROOT, pins, name) for name in pins.builds}
    needed |= {base_reference(ROOT, build.suite) for build in pins.builds.values()}
    # of an archive's images a plan names the IDs, whatever tags they have
    named = {reference for reference in needed if reference.startswith("sha256:")}
    # tags: an engine names an image that it pulled by digest without it
    needed = {_tag(reference) for reference in needed}
    record = {_tag(reference): when for reference, when in image_record.read(found.shared).items()}
    in_use = {container.attrs["ImageID"] for container in client.containers.list(all=True, sparse=True)}
    for image in client.images.list():
        for tag in image.tags:
            ours = tag in record or tag.startswith(f"{BUILT}/")
            since = _age(max(record.get(tag, 0.0), _unix(image.attrs.get("Created"))))
            if ours and tag not in needed and image.id not in in_use | named and since > ages.days:
                yield Unused("image", tag, int(image.attrs["Size"]), since, "no stack names it")


def _tag(reference: str) -> str:
    return reference.partition("@")[0]


def unused_models(found: Inputs, kept: Sequence[dict[str, Any]], ages: Ages, now: float) -> Iterator[Unused]:
    """Fetched models that no plan and no stack file names, and fetches that nobody went on with."""
    folder = found.shared / "models"
    engines = [engine for plan in kept for engine in (*plan["engines"], *plan.get("cordoned", ()))]
    needed = {path for engine in engines for path in (engine["model_dir"], *engine.get("adapter_dirs", ()))}
    needed |= {str(part.folder) for part in parts_of(found.config, ROOT)}
    for name, entry in sorted(models_lock.read(found.shared / "models.lock").items()):
        path = folder / name
        days = (now - _unix(entry.get("fetched"))) / DAY
        if path.is_dir() and str(path) not in needed and days > ages.days:
            yield Unused("model", str(path), measure(path)[0], days, "no stack names it")
    for path in sorted({*folder.glob("*/*.partial"), *folder.glob("*/*/*.partial")}):
        size, newest = measure(path)
        days = (now - newest) / DAY
        if days > PARTIAL_DAYS:
            yield Unused("model", str(path), size, days, "a fetch that nobody went on with")


def measure(path: Path) -> tuple[int, float]:
    """(bytes on disk, time of the newest change) of a folder or file."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    about = [one.lstat() for one in files]
    # names of one file count once
    blocks = {(one.st_dev, one.st_ino): one.st_blocks * 512 for one in about}
    return sum(blocks.values()), max(one.st_mtime for one in about)


def _builds(found: Inputs, plans: Sequence[Plan], ages: Ages, now: float) -> Iterator[Unused]:
    hosts = {plan.host for plan in plans}
    for file in sorted(found.build.glob("*/plan.json")):
        size, newest = measure(file.parent)
        ours = json.loads(file.read_text()).get("project") == found.config.name
        if ours and file.parent.name not in hosts and (days := (now - newest) / DAY) > ages.days:
            yield Unused("build", str(file.parent), size, days, "a host that the plan does not have")


def _caches(found: Inputs, plans: Sequence[Plan], ages: Ages, now: float) -> Iterator[Unused]:
    for stack in sorted(found.shared.glob("stacks/*")):
        applied = stack / "live/plan.json"
        if not applied.is_file():
            continue
        known = [json.loads(applied.read_text())]
        known += [plan.as_dict() for plan in plans] if stack == found.state else []
        names = {engine["name"] for plan in known for engine in (*plan["engines"], *plan.get("cordoned", ()))}
        for path in sorted((stack / "cache").glob("*")):
            size, newest = measure(path)
            if path.name not in names and (days := (now - newest) / DAY) > ages.days:
                yield Unused("cache", str(path), size, days, "an engine that is not there any more")


def _evidence(found: Inputs, ages: Ages, now: float) -> Iterator[Unused]:
    for path in sorted(found.shared.glob("stacks/*/evidence/*/*")):
        size, newest = measure(path)
        if path.is_dir() and (days := (now - newest) / DAY) > ages.evidence:
            yield Unused("evidence", str(path), size, days, "old")


def _unix(text: Any) -> float:
    try:
        return datetime.datetime.fromisoformat(str(text)[:19] + "+00:00").timestamp()
    except ValueError:
        return time.time()  # not known: as if it were new


def _age(when: float) -> float:
    return (time.time() - when) / DAY
