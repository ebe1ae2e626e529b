"""``auto`` in stack.yaml -> plain numbers for one host, before the plan is made. Pure: files are read elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from stack.config.fields import AUTO
from stack.config.load import problem_at
from stack.config.model import Model
from stack.config.schema import StackConfig
from stack.errors import InputError, Problem
from stack.hardware import Gpu, Host
from stack.sizing import on_cpu
from stack.sizing.advice import changes, shortage
from stack.sizing.candidates import candidate, divides, sizes
from stack.sizing.catalogue import Card, card_of
from stack.sizing.choice import Choice, choose
from stack.sizing.errors import CannotPlanError
from stack.sizing.files import Known, Unknown, auto_keys
from stack.sizing.wishes import Wish, wish_of

Files = Mapping[str, Known | Unknown]


@dataclass(frozen=True)
class Sized:
    """What the planner found for one model on one host. choice: None where it cannot plan; why: what it says then.

    auto: the keys that were left to it.
    """

    model: Model
    auto: tuple[str, ...]
    known: Known | None
    card: Card | None
    choice: Choice | None
    why: str | None = None


class Resolver:
    """Resolves hosts of one configuration; hosts with equal GPUs are worked out once."""

    def __init__(self, config: StackConfig, files: Files, shown: str = "stack.yaml") -> None:
        self.config, self.files, self.shown = config, files, shown
        self._seen: dict[tuple[int, Card, int, Wish], Choice | None] = {}

    def host(self, host: Host, cordoned: frozenset[str] = frozenset()) -> tuple[StackConfig, tuple[Sized, ...]]:
        """The configuration with numbers for ``auto``, and the reasons. Raises InputError with every problem."""
        if self.config.device == "cpu":
            found = tuple(self._on_cpu(model) for model in self.config.models)
        else:
            found = self._on_gpus(Host(name=host.name, gpus=_usable(host, cordoned)))
        problems = [problem for index, sized in enumerate(found) for problem in self._problems(index, sized)]
        if problems:
            raise InputError(self.shown, problems)
        models = tuple(_numbers(sized) for sized in found)
        return self.config.model_copy(update={"models": models}), found

    def _on_gpus(self, host: Host) -> tuple[Sized, ...]:
        try:
            card, why = _card(host), None
        except CannotPlanError as error:
            card, why = None, str(error)
        found = [self._unplanned(model, card, why) for model in self.config.models]
        budgets = self._budgets(found, len(host.gpus))
        return tuple(
            sized if sized.why else self._chosen(index, sized, min(budgets[index], len(host.gpus)))
            for index, sized in enumerate(found)
        )

    def _unplanned(self, model: Model, card: Card | None, why: str | None) -> Sized:
        files = self.files.get(model.served_model_name)
        auto = auto_keys(model)
        if files is None:
            return Sized(model, auto, None, card, None, "its files are not here yet: `make fetch` brings them")
        if isinstance(files, Unknown):
            return Sized(model, auto, None, card, None, files.reason)
        return Sized(model, auto, files, card, None, why)

    def _budgets(self, found: list[Sized], gpus: int) -> list[int]:
        # what is said first, then one replica of the size that suits each, then the rest in turn to who may grow
        least = [self._least(index, sized, gpus, smallest=False) for index, sized in enumerate(found)]
        for index in reversed(range(len(found))):
            if sum(least) > gpus:
                least[index] = self._least(index, found[index], gpus, smallest=True)
        grows = [index for index, sized in enumerate(found) if not sized.why and "replicas" in sized.auto]
        steps = {index: max(1, least[index]) for index in grows}
        budgets, rest = list(least), gpus - sum(least)
        while any(steps[index] <= rest for index in grows):
            for index in grows:
                if steps[index] <= rest:
                    budgets[index] += steps[index]
                    rest -= steps[index]
        for index, sized in enumerate(found):
            # a single model may use what is left for a larger size
            if not sized.why and "tensor_parallel_size" in sized.auto and rest > 0 and len(found) == 1:
                budgets[index] += rest
        return budgets

    def _least(self, index: int, sized: Sized, gpus: int, *, smallest: bool) -> int:
        model = sized.model
        size, replicas = model.tensor_parallel_size, model.replicas
        if sized.why or sized.known is None or sized.card is None:
            return max(size, 1) * max(replicas, 1)
        count = 1 if replicas == AUTO else replicas
        if size != AUTO:
            return size * count
        one = replace(wish_of(model), replicas=1)
        chosen = None if smallest else self._choose(index, sized, gpus, one)
        if chosen is not None:
            return chosen.chosen.size * count
        for possible in sizes(sized.known.shape, gpus):
            if candidate(sized.known.shape, sized.known.weights, sized.card, possible, 1, one).fits:
                return possible * count
        return gpus

    def _chosen(self, index: int, sized: Sized, gpus: int) -> Sized:
        assert sized.known is not None
        assert sized.card is not None
        wish = wish_of(sized.model)
        choice = self._choose(index, sized, gpus, wish)
        if choice is not None:
            return replace(sized, choice=choice)
        return replace(sized, why=self._misfit(sized, gpus, wish))

    def _choose(self, index: int, sized: Sized, gpus: int, wish: Wish) -> Choice | None:
        assert sized.known is not None
        assert sized.card is not None
        key = (index, sized.card, gpus, wish)
        if key not in self._seen:
            self._seen[key] = choose(sized.known.shape, sized.known.weights, sized.card, gpus, wish)
        return self._seen[key]

    def _misfit(self, sized: Sized, gpus: int, wish: Wish) -> str:
        assert sized.known is not None
        assert sized.card is not None
        shape, weights = sized.known.shape, sized.known.weights
        size = wish.tensor_parallel_size
        if size is not None and not divides(shape, size):
            return f"{size} does not divide {shape.heads} attention heads and {shape.kv_heads} heads of keys"
        replicas = wish.replicas or 1
        if (size or 1) * replicas > gpus:
            return f"{(size or 1) * replicas} GPUs are needed, {gpus} are free"
        gpus //= replicas
        better = list(changes(shape, weights, sized.card, gpus, wish))
        advice = f"; it would with {' or with '.join(better)}" if better else "; no change of one setting helps"
        return shortage(shape, weights, sized.card, gpus, wish) + advice

    def _on_cpu(self, model: Model) -> Sized:
        sized = self._unplanned(model, None, None)
        if sized.why or sized.known is None:
            return sized
        return replace(sized, choice=on_cpu.choose(sized.known.shape, model))

    def _problems(self, index: int, sized: Sized) -> Iterable[Problem]:
        if sized.why is None:
            return
        for key in sized.auto[:1]:
            what = f"auto: {sized.why}"
            if sized.known is None or sized.card is None:
                what += f"; or set {', '.join(sized.auto)} yourself"
            yield problem_at(self.config, self.config.models[index], key, what)


def _usable(host: Host, cordoned: frozenset[str]) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in host.gpus if gpu.uuid not in cordoned)


def _card(host: Host) -> Card:
    kinds = {card_of(gpu) for gpu in host.gpus}
    if not kinds:
        raise CannotPlanError(f"host {host.name!r} has no GPU")
    if len(kinds) > 1:
        names = ", ".join(sorted(card.key for card in kinds))
        raise CannotPlanError(f"host {host.name!r} has GPUs of several kinds ({names})")
    return kinds.pop()


def _numbers(sized: Sized) -> Model:
    if not sized.auto or sized.choice is None:
        return sized.model
    chosen = sized.choice.chosen
    setting = chosen.memory.setting
    values = {
        "tensor_parallel_size": chosen.size,
        "replicas": chosen.replicas,
        "max_model_len": setting.max_model_len,
        "max_num_seqs": setting.max_num_seqs,
        "max_num_batched_tokens": setting.max_num_batched_tokens,
        "gpu_memory_utilization": setting.gpu_memory_utilization,
    }
    return sized.model.model_copy(update={key: values[key] for key in sized.auto})
