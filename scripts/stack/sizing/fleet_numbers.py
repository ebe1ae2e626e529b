"""``auto`` in a fleet: numbers for each model on each kind of host. Pure, as resolve.py is for one host.

A model has one context and one number of sequences in its pool, whichever replica answers: the smallest of its hosts'.
GPUs of one engine, batched tokens and the share of memory may differ with the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stack.config.fields import AUTO
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.hardware import Gpu, Host
from stack.sizing.files import auto_keys
from stack.sizing.resolve import Files, Resolver, Sized

SPANS = "its replicas span hosts, and this plan works out memory for one host"
SHARED = ("max_model_len", "max_num_seqs")
Kind = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Numbers:
    """kinds: host -> its kind. models: kind -> models by their place in the stack file; one that cannot run there is
    missing. replicas: by place, None for as many as the GPUs allow. reasons: kind -> what `make plan` says.
    """

    kinds: Mapping[str, Kind]
    models: Mapping[Kind, Mapping[int, Model]]
    replicas: tuple[int | None, ...]
    reasons: Mapping[Kind, tuple[Sized, ...]]

    def on(self, host: str) -> Mapping[int, Model]:
        """The models that a host can serve."""
        return self.models[self.kinds[host]]


def numbers(config: StackConfig, files: Files, hosts: Sequence[Host], shown: str) -> Numbers:
    """Of every host that runs engines. Raises InputError with the problems of models that none of them can serve."""
    kinds = {host.name: tuple((gpu.model, gpu.memory_mib) for gpu in host.gpus) for host in hosts}
    of_kind = {kinds[host.name]: host for host in reversed(hosts)}
    models: dict[Kind, dict[int, Model]] = {kind: {} for kind in of_kind}
    reasons: dict[Kind, list[Sized]] = {kind: [] for kind in of_kind}
    problems: list[Problem] = []
    for index, model in enumerate(config.models):
        refused: list[Problem] = []
        for kind, host in of_kind.items():
            try:
                found, sized = _one(config, model, files, host, shown)
            except InputError as error:
                refused += [Problem(at.where.replace("[0]", f"[{index}]", 1), at.what) for at in error.problems]
                continue
            models[kind][index] = found
            reasons[kind].append(sized)
        if not any(index in served for served in models.values()):
            problems += dict.fromkeys(refused)
    if problems:
        raise InputError(shown, problems)
    for index, model in enumerate(config.models):
        shared = _share(models, index, model)
        for kind, told in reasons.items():
            reasons[kind] = [_as_shared(one, model, shared) for one in told]
    replicas = tuple(None if model.replicas == AUTO else model.replicas for model in config.models)
    return Numbers(kinds, models, replicas, {kind: tuple(found) for kind, found in reasons.items()})


def _one(config: StackConfig, model: Model, files: Files, host: Host, shown: str) -> tuple[Model, Sized]:
    if model.nnodes > 1:
        # its keys have numbers, and the room for its cache on so many hosts is found by vLLM at its start
        return model.model_copy(update={"replicas": 1}), Sized(model, (), None, None, None, SPANS)
    # how many replicas there are is a matter of the fleet; with no other number open nothing needs to be known
    open_keys = [key for key in auto_keys(model) if key != "replicas"]
    gpus: tuple[Gpu, ...] = host.gpus
    if model.replicas == AUTO and not open_keys:
        model = model.model_copy(update={"replicas": 1})
    elif model.replicas != AUTO:
        # so many hosts of this kind that each replica may have one to itself
        gpus = gpus * model.replicas
    single = config.model_copy(update={"models": (model,)})
    resolved, (sized,) = Resolver(single, files, shown).host(host.model_copy(update={"gpus": gpus}))
    return resolved.models[0].model_copy(update={"replicas": 1}), sized


def _share(models: Mapping[Kind, dict[int, Model]], index: int, model: Model) -> dict[str, int]:
    shared = {}
    for key in [key for key in SHARED if key in auto_keys(model)]:
        served = [found for found in models.values() if index in found]
        shared[key] = min(getattr(found[index], key) for found in served)
        for found in served:
            found[index] = found[index].model_copy(update={key: shared[key]})
    return shared


def _as_shared(sized: Sized, model: Model, shared: Mapping[str, int]) -> Sized:
    if sized.choice is None or sized.model.served_model_name != model.served_model_name:
        return sized
    setting = sized.choice.chosen.memory.setting
    less = [f"{key} {least}" for key, least in shared.items() if getattr(setting, key) != least]
    if not less:
        return sized
    reason = f"another host of the fleet has room for less: {' and '.join(less)} everywhere"
    return replace(sized, choice=replace(sized.choice, reasons=(*sized.choice.reasons, reason)))
