"""Every stack file of the repository that has a plan: the examples, the reference file, and the cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from stack import fleet_lock
from stack.config.folders import model_dir
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.hardware import Gpu, Host, is_fleet, load_hosts
from stack.plan.fleet import Given, make_fleet
from stack.plan.make import make_plan
from stack.plan.types import Plan
from stack.sizing.files import Known, Unknown, needs_of
from stack.sizing.resolve import Resolver

ROOT = Path(__file__).resolve().parents[1]
# Constructed: a GPU host to plan the files on that name none of their own.
EIGHT_GPUS = Host(
    name="node",
    gpus=tuple(
        Gpu(uuid=f"GPU-00000000-0000-0000-0000-{n:012}", model="NVIDIA A100-SXM4-80GB", memory_mib=81920)
        for n in range(8)
    ),
)


def stack_files() -> list[Path]:
    """Sorted paths of all stack files that are meant to work."""
    cases = (path.with_name("stack.yaml") for path in ROOT.glob("tests/cases/*/plan.json"))
    return sorted([*ROOT.glob("compose/examples/*.yaml"), ROOT / "stack.example.yaml", *cases])


def plans(images: Mapping[str, str], *, images_built: bool) -> Iterator[tuple[str, Plan]]:
    """(path of the stack file, plan) for each host of each file."""
    for path in stack_files():
        config = load_config(path)
        own = path.with_name("hosts.yaml")
        hosts = load_hosts(own) if own.exists() else (EIGHT_GPUS if config.device == "cuda" else Host(),)
        if is_fleet(hosts):
            needs = _needs(config, path)
            given = Given(
                images, ROOT, {}, needs, {}, images_built, previous=fleet_lock.load(fleet_lock.lock_file(own))
            )
            yield from ((str(path.relative_to(ROOT)), plan) for plan, _ in make_fleet(config, hosts, given))
            continue
        resolver = _resolver(config, path)
        for host in hosts:
            resolved, _ = resolver.host(host)
            yield str(path.relative_to(ROOT)), make_plan(resolved, host, images, ROOT, images_built=images_built)


def _resolver(config: StackConfig, path: Path) -> Resolver:
    return Resolver(config, _needs(config, path))


def _needs(config: StackConfig, path: Path) -> dict[str, Known | Unknown]:
    return needs_of(config, lambda model: model_dir(config, model, path.parent), str(path))
