"""What a host's own state adds to a plan, in a form that travels: the controller renders with it. No secret is in it.

Of API keys there is their SHA-256, of the engines' key the name of its copies, as in the rendered tree itself.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import docker

from stack import certificates, cordons, drains, kept_state
from stack.config.folders import absolute, model_dir, state_dir
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.deploy.running import RunningEngine, engine_from, running_engines
from stack.effects import service_hashes
from stack.errors import InputError
from stack.gateway_state import GatewayState
from stack.images.archive import ArchiveList, read_list
from stack.models.config_json import ModelFacts, read_config
from stack.models.facts import gather_facts
from stack.plan.gateway import client_names
from stack.roll import started_within
from stack.sizing.files import Known, Unknown, auto_keys, known_of, running_gpus
from stack.sizing.headers import Tensor, tensors_of
from stack.tree import checksums, read_tree

FORMAT = 1


@dataclass(frozen=True)
class HostState:
    """What a host says of itself. gpus: running engine -> uuids. archive: the list of its image archive.

    live: path -> SHA-256 of the tree that runs. services: service -> Compose's hash there. engines, start_seconds: what
    a host of a fleet adds, its engines' containers and the seconds that their last start took.
    """

    gateway: GatewayState = field(default_factory=GatewayState)
    cordoned: frozenset[str] = frozenset()
    gpus: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    needs: Mapping[str, Known | Unknown] = field(default_factory=dict)
    archive: ArchiveList | None = None
    live: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    engines: Mapping[str, RunningEngine] = field(default_factory=dict)
    start_seconds: Mapping[str, float] = field(default_factory=dict)


def tell(
    config: StackConfig, host: str, root: Path, shown: str, client: docker.DockerClient | None = None
) -> dict[str, Any]:
    """The state of this host, as load() reads it. host: its name in the plan. client: Docker's, of a host of a fleet.

    Raises InputError.
    """
    state = state_dir(config, root)
    facts = gather_facts(config, root, shown)
    certificate = certificates.current(state, config.gateway, root)
    gateway = asdict(kept_state.load(state, client_names(config), certificate))
    live = read_tree(state / "live")
    archive = absolute(root, config.images.archive or "")
    told = config.images.source == "archive" and archive.is_file()
    return {
        "format": FORMAT,
        # what a deploy has taken out is no decision that the next tree is rendered with
        "gateway": {**gateway, "drained": sorted(drains.drained(state))},
        "cordoned": sorted(cordons.cordoned(state)),
        "gpus": running_gpus(state / "live", host),
        "models": {
            model.served_model_name: {
                "facts": asdict(facts[model.served_model_name]),
                "files": _packed(model_dir(config, model, root)) if auto_keys(model) else None,
            }
            for model in config.models
            if model.served_model_name in facts
        },
        "archive": read_list(archive).model_dump() if told else None,
        "live": checksums(live),
        "services": service_hashes(live),
        "engines": running_engines(config.name, client) if client else {},
        "start_seconds": started_within(state),
    }


def load(path: Path, config: StackConfig) -> HostState:
    """What tell() said on the host, from a file; of a host that has no release yet, at most its archive's list.

    Raises InputError.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        archive = ArchiveList.model_validate(document["archive"]) if document.get("archive") else None
        if document.get("format") != FORMAT:
            return HostState(archive=archive)  # none, or of another release: a look before the first deploy of this one
        gateway, models = document["gateway"], document["models"]
        return HostState(
            GatewayState(**{**gateway, "drained": frozenset(gateway["drained"])}),
            frozenset(document["cordoned"]),
            {name: tuple(uuids) for name, uuids in document["gpus"].items()},
            {name: ModelFacts(**told["facts"]) for name, told in models.items()},
            {
                model.served_model_name: _unpacked(models[model.served_model_name]["files"], model)
                for model in config.models
                if models.get(model.served_model_name, {}).get("files")
            },
            archive,
            document["live"], document["services"],
            {name: engine_from(engine) for name, engine in document.get("engines", {}).items()},
            document.get("start_seconds", {}),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), f"not what a host says of itself ({type(error).__name__}: {error})") from None


def _packed(folder: Path) -> str:
    # the names and shapes of a large model's tensors are some megabytes of text
    tensors = tensors_of(folder)
    rows = None if tensors is None else [[each.name, each.dtype, each.shape, each.size] for each in tensors]
    text = json.dumps({"config": read_config(folder), "tensors": rows}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode())).decode()


def _unpacked(packed: str, model: Model) -> Known | Unknown:
    files = json.loads(zlib.decompress(base64.b64decode(packed)))
    rows = files["tensors"]
    tensors = rows and tuple(Tensor(name, kind, tuple(shape), size) for name, kind, shape, size in rows)
    return known_of(files["config"], lambda: tensors, "config.json", model)
