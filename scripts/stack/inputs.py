"""Everything a plan is made from, gathered once: the stack file, the host, the images, the models' facts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack import certificates, cordons, fleet_lock, kept_state
from stack.config.fields import UNSAFE_IN_PATHS
from stack.config.folders import absolute, model_dir, state_dir
from stack.config.load import load_config
from stack.config.schema import StackConfig
from stack.deploy import fleet_state, host_state, records
from stack.deploy.host_state import HostState
from stack.errors import InputError
from stack.hardware import Host, is_fleet, save_hosts
from stack.images.archive import ArchiveList
from stack.images.choice import choose
from stack.images.pins import Source
from stack.images.source import remember as remember_source
from stack.images.source import source_of
from stack.models.config_json import ModelFacts
from stack.models.facts import gather_facts
from stack.observe import user_files
from stack.plan.fleet import Given, make_fleet
from stack.plan.make import make_plan
from stack.plan.places import EnginePlace
from stack.plan.types import Plan
from stack.render import render
from stack.sizing.files import Known, Unknown, needs_of, running_gpus
from stack.sizing.resolve import Resolver, Sized
from stack.which_hosts import taken_file, taken_gpus, which_hosts

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Inputs:
    """One stack file and what it is planned with. shown: its name in messages. cordoned: GPUs not to be used.

    places: of a fleet's engines, as its lock has them. only: the one host of a fleet that is asked for.
    told: what another host, or a fleet together, says of itself; None: this box is looked at.
    archive: the list of the image archive, where images come from one.
    """

    shown: str
    config: StackConfig
    hosts: tuple[Host, ...]
    source: Source
    images: dict[str, str]
    images_built: bool
    facts: Mapping[str, ModelFacts]
    cordoned: frozenset[str]
    needs: Mapping[str, Known | Unknown]
    rules: dict[str, str]
    places: Mapping[str, EnginePlace] = field(default_factory=dict)
    only: str | None = None
    told: HostState | None = None
    archive: ArchiveList | None = None

    @property
    def state(self) -> Path:
        """The stack's own folder on this host: secrets, certificate, caches, live tree."""
        return state_dir(self.config, ROOT)

    @property
    def live(self) -> Path:
        """The tree that the running containers mount: what was applied last."""
        return self.state / "live"

    @property
    def shared(self) -> Path:
        """What every stack of this configuration's state folder shares: models, lock files."""
        return absolute(ROOT, self.config.paths.state)

    @property
    def build(self) -> Path:
        """Parent of the rendered trees."""
        return absolute(ROOT, self.config.paths.build)

    def plans(self) -> list[Plan]:
        """One plan for each host."""
        return [plan for plan, _ in self.plans_with_reasons()]

    def plans_with_reasons(self) -> list[tuple[Plan, tuple[Sized, ...]]]:
        """One plan for each host, and what the numbers rest on."""
        if is_fleet(self.hosts):
            return [made for made in self.fleet() if self.only in (None, made[0].host)]
        resolver = Resolver(self.config, self.needs, self.shown)
        made = []
        for host in self.hosts:
            resolved, sized = resolver.host(host)
            previous = self.told.gpus if self.told else running_gpus(self.live, host.name)
            plan = make_plan(
                resolved, host, self.images, ROOT, self.facts, rules=self.rules,
                images_built=self.images_built, shown=self.shown, previous=previous,
            )  # fmt: skip
            made.append((cordons.without_gpus(plan, self.cordoned), sized))
        return made

    def fleet(self) -> list[tuple[Plan, tuple[Sized, ...]]]:
        """The plan of every host of a fleet, whichever is asked for."""
        given = Given(
            self.images, ROOT, self.facts, self.needs, self.rules,
            self.images_built, self.shown, self.places, self.cordoned)  # fmt: skip
        return make_fleet(self.config, self.hosts, given)

    def render(self, plan: Plan) -> dict[str, bytes]:
        """The files of build/<host>/, with the API keys and the certificate that exist so far."""
        if self.told:
            return render(plan, self.told.gateway, ROOT)
        certificate = certificates.current(self.state, self.config.gateway, ROOT)
        return render(plan, kept_state.load(self.state, plan.gateway["api_keys"], certificate), ROOT)


@dataclass(frozen=True)
class Place:
    """Where a stack lives on this host: what is needed to look at it or to stop it, whatever became of the rest."""

    project: str
    state: Path

    @property
    def live(self) -> Path:
        """The tree that the running containers mount."""
        return self.state / "live"


def place(arguments: argparse.Namespace) -> Place:
    """From the stack file alone. Raises InputError."""
    config = load_config(arguments.stack, str(arguments.stack))
    return Place(config.name, state_dir(config, ROOT))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command about a stack takes."""
    parser.add_argument("stack", type=Path, metavar="STACK", help="the stack file, such as stack.yaml")
    parser.add_argument("--hosts", type=Path, metavar="FILE", help="hosts file (default: this box and its idle GPUs)")
    parser.add_argument("--host", metavar="NAME", help="only this host of the hosts file")
    parser.set_defaults(facts=None, kept=None)


def gather(arguments: argparse.Namespace) -> Inputs:
    """Read and check all inputs. Raises InputError with every problem; changes nothing.

    arguments.facts: what another host says of itself. arguments.kept: the record of a release that is gone back to.
    """
    shown = str(arguments.stack)
    _check_root()
    config = load_config(arguments.stack, shown)
    told = _told(arguments.facts, config, shown) if arguments.facts else None
    state = state_dir(config, ROOT)
    facts = told.facts if told else gather_facts(config, ROOT, shown)
    hosts = which_hosts(config, arguments, state)
    source = source_of(config.images, arguments.stack, ROOT, _source_file(config))
    contents = told.archive if told else records.archive_of(arguments.kept)
    chosen = choose(ROOT, config.images, source, config.device, config.images_unwanted, contents)
    cordoned = told.cordoned if told else cordons.cordoned(state)
    needs = told.needs if told else needs_of(config, lambda model: model_dir(config, model, ROOT), shown)
    rules = user_files.read(config.observability.model_dump(), ROOT, shown, secrets=told is None)
    return Inputs(
        shown, config, hosts, source, chosen.references, chosen.built, facts, cordoned, needs, rules,
        fleet_lock.load(fleet_lock.lock_file(arguments.hosts)) if is_fleet(hosts) else {},
        arguments.host if is_fleet(hosts) else None, told, chosen.contents,
    )  # fmt: skip


def _told(facts: Path, config: StackConfig, shown: str) -> HostState:
    if facts.is_dir():
        return fleet_state.merged(fleet_state.load_all(facts, config), shown)
    return host_state.load(facts, config)


def remember(inputs: Inputs, plan: Plan, *, failed_before: bool = False) -> None:
    """Keep what was found on this box, so that the next run plans the same: its GPUs, where images come from.

    failed_before: it is not known yet whether the plan works; GPUs taken earlier are not given up for it.
    """
    inputs.state.mkdir(parents=True, exist_ok=True)
    if inputs.config.device == "cuda":
        used = {uuid for engine in (*plan.engines, *plan.cordoned) for uuid in engine.gpus}
        earlier = {gpu.uuid for gpu in taken_gpus(inputs.state)} if failed_before else set()
        host = inputs.hosts[0]
        kept = tuple(gpu for gpu in host.gpus if gpu.uuid in used | earlier)
        save_hosts(taken_file(inputs.state), (host.model_copy(update={"gpus": kept}),))
    remember_source(inputs.source, inputs.config.images, Path(inputs.shown), ROOT, _source_file(inputs.config))


def _check_root() -> None:
    bad = sorted(set(str(ROOT)) & set(UNSAFE_IN_PATHS))
    if bad:
        raise InputError(
            str(ROOT), f"Compose cannot mount from a folder with {' '.join(bad)} in its path: move the checkout"
        )


def _source_file(config: StackConfig) -> Path:
    return state_dir(config, ROOT) / "images.yaml"
