"""Everything a plan is made from, gathered once: the stack file, the host, the images, the models' facts."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import yaml

from stack import certificates, images, kept_state
from stack.config import UNSAFE_IN_PATHS, StackConfig, load_config, problem_at
from stack.errors import InputError, Problem, StackError
from stack.hardware import Gpu, Host, find_gpus, load_hosts, save_hosts
from stack.model import ModelFacts, ModelFilesError, read_facts
from stack.observe import user_files
from stack.plan import Plan, absolute, make_plan, model_dir, state_dir
from stack.render import render

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Inputs:
    """One stack file and what it is planned with. shown: its name in messages."""

    shown: str
    config: StackConfig
    hosts: tuple[Host, ...]
    source: images.Source
    images: dict[str, str]
    facts: dict[str, ModelFacts]
    rules: dict[str, str]

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
        return [
            make_plan(
                self.config, host, self.images, ROOT, self.facts, rules=self.rules,
                images_built=self.source == "build", shown=self.shown,
            )
            for host in self.hosts
        ]  # fmt: skip

    def render(self, plan: Plan) -> dict[str, bytes]:
        """The files of build/<host>/, with the API keys and the certificate that exist so far."""
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


def gather(arguments: argparse.Namespace) -> Inputs:
    """Read and check all inputs. Raises InputError with every problem; changes nothing."""
    shown = str(arguments.stack)
    _check_root()
    config = load_config(arguments.stack, shown)
    facts = _facts(config, shown)
    hosts = _hosts(config, arguments)
    source = _source(config)
    references = images.references(ROOT, images.load_pins(ROOT), source, config.device, config.images.mirror)
    rules = user_files.read(config.observability.model_dump(), ROOT, shown)
    return Inputs(shown, config, hosts, source, references, facts, rules)


def remember(inputs: Inputs, plan: Plan, *, failed_before: bool = False) -> None:
    """Keep what was found on this box, so that the next run plans the same: its GPUs, where images come from.

    failed_before: it is not known yet whether the plan works; GPUs taken earlier are not given up for it.
    """
    inputs.state.mkdir(parents=True, exist_ok=True)
    if inputs.config.device == "cuda":
        used = {uuid for engine in plan.engines for uuid in engine.gpus}
        earlier = {gpu.uuid for gpu in taken_gpus(inputs.config)} if failed_before else set()
        host = inputs.hosts[0]
        kept = tuple(gpu for gpu in host.gpus if gpu.uuid in used | earlier)
        save_hosts(_hosts_file(inputs.config), (host.model_copy(update={"gpus": kept}),))
    if inputs.config.images.source == "auto":
        _source_file(inputs.config).write_text(yaml.safe_dump({"source": inputs.source}))


def taken_gpus(config: StackConfig) -> tuple[Gpu, ...]:
    """The GPUs of this box that the stack took earlier."""
    known = _hosts_file(config)
    return load_hosts(known)[0].gpus if known.is_file() else ()


def _check_root() -> None:
    bad = sorted(set(str(ROOT)) & set(UNSAFE_IN_PATHS))
    if bad:
        raise InputError(
            str(ROOT), f"Compose cannot mount from a folder with {' '.join(bad)} in its path: move the checkout"
        )


def _hosts_file(config: StackConfig) -> Path:
    return state_dir(config, ROOT) / "hosts.yaml"


def _source_file(config: StackConfig) -> Path:
    return state_dir(config, ROOT) / "images.yaml"


def _source(config: StackConfig) -> images.Source:
    asked = config.images.source
    known = _source_file(config)
    if asked == "auto" and known.is_file():
        # decided on the first `make up`: asking the registry each time could change a running stack's images
        return "build" if (yaml.safe_load(known.read_text()) or {}).get("source") == "build" else "registry"
    return images.choose_source(asked, config.device, config.images.mirror)


def _facts(config: StackConfig, shown: str) -> dict[str, ModelFacts]:
    facts: dict[str, ModelFacts] = {}
    problems: list[Problem] = []
    for model in config.models:
        folder = model_dir(config, model, ROOT)
        if model.source.path is None and not folder.is_dir():
            continue  # made or fetched by `make up`, which looks again
        try:
            facts[model.served_model_name] = read_facts(folder)
        except ModelFilesError as error:
            key = "source.path" if model.source.path is not None else "source"
            problems.append(problem_at(config, model, key, str(error)))
    if problems:
        raise InputError(shown, problems)
    return facts


def _hosts(config: StackConfig, arguments: argparse.Namespace) -> tuple[Host, ...]:
    if arguments.hosts is not None:
        hosts = load_hosts(arguments.hosts)
        if arguments.host is None:
            return hosts
        chosen = tuple(host for host in hosts if host.name == arguments.host)
        if not chosen:
            names = ", ".join(host.name for host in hosts)
            raise InputError(str(arguments.hosts), f"no host {arguments.host!r}; there are: {names}")
        return chosen
    if config.device == "cpu":
        return (Host(),)
    return (Host(gpus=_gpus_here(config)),)


def _gpus_here(config: StackConfig) -> tuple[Gpu, ...]:
    idle, busy = find_gpus()
    here = {gpu.uuid: gpu for gpu in (*idle, *busy)}
    # the stack's own engines make its GPUs busy: what it took stays its own, and comes first
    taken = [gpu.uuid for gpu in taken_gpus(config)]
    gone = [uuid for uuid in taken if uuid not in here]
    if gone:
        raise StackError(
            f"{_hosts_file(config)}: GPU {', '.join(gone)} is not in this box any more (see `nvidia-smi -L`);"
            " delete the file to choose from the GPUs that are here"
        )
    return (*(here[uuid] for uuid in taken), *(gpu for gpu in idle if gpu.uuid not in taken))
