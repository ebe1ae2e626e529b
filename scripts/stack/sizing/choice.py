"""Which candidate serves best, and the reasons in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stack.sizing.candidates import BUSY, Candidate, candidate, candidates
from stack.sizing.catalogue import Card
from stack.sizing.shapes import Shape
from stack.sizing.weights import Weights
from stack.sizing.wishes import WANTED_CONTEXT, Wish

# More GPUs for one stream have to pay for themselves: a tenth faster, or the smaller size is kept.
WORTH_IT = 1.10


@dataclass(frozen=True)
class Choice:
    """What was chosen, everything it was chosen from, and why. warnings: goals that are not met."""

    chosen: Candidate
    considered: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def choose(shape: Shape, weights: Weights, card: Card, gpus: int, wish: Wish) -> Choice | None:
    """The best way on ``gpus`` GPUs of one kind; None where none fits."""
    if wish.tensor_parallel_size and wish.replicas:
        return _as_said(shape, weights, card, wish)
    considered = tuple(candidates(shape, weights, card, gpus, wish))
    fitting = [way for way in considered if way.fits]
    if not fitting:
        return None
    pick = {"throughput": _throughput, "latency": _latency, "slo": _slo}[wish.objective.kind]
    chosen, reasons, warnings = pick(shape, fitting, wish)
    return Choice(chosen, considered, (*_skipped(considered, chosen), *reasons), tuple(warnings))


def _as_said(shape: Shape, weights: Weights, card: Card, wish: Wish) -> Choice | None:
    # the shape is given: what else the same GPUs could do stands beside it
    assert wish.tensor_parallel_size
    assert wish.replicas
    said = candidate(shape, weights, card, wish.tensor_parallel_size, wish.replicas, wish)
    if not said.fits:
        return None
    gpus = wish.tensor_parallel_size * wish.replicas
    others = candidates(shape, weights, card, gpus, replace(wish, tensor_parallel_size=None, replicas=None))
    ways = sorted([said, *(way for way in others if way.size != said.size)], key=lambda way: way.size)
    reasons = ["stack.yaml says so"]
    best = max((way for way in ways if way.fits), key=lambda way: way.busy)
    if best.busy > WORTH_IT * said.busy and wish.objective.kind == "throughput":
        reasons.append(
            f"{best.replicas} x TP{best.size} on the same GPUs could give {best.busy:.0f} tokens/s with {BUSY} requests"
            f" in each replica, this {said.busy:.0f}: tensor_parallel_size: auto chooses it"
        )
    return Choice(said, tuple(ways), tuple(reasons))


_Picked = tuple[Candidate, list[str], list[str]]


def _throughput(shape: Shape, fitting: list[Candidate], wish: Wish) -> _Picked:
    context = min(shape.max_length, WANTED_CONTEXT) if wish.max_model_len is None else 0
    long_enough = [way for way in fitting if way.memory.setting.max_model_len >= context] or fitting
    roomy = [way for way in long_enough if way.room >= way.needed]
    if not roomy:
        best = max(long_enough, key=lambda way: (way.replicas * way.room, -way.size))
        what = (
            f"no size holds {wish.objective.concurrency} requests of {best.request} tokens at once;"
            f" this one holds most: {best.replicas * best.room}"
        )
        return best, [what], [what]
    best = roomy[0]
    if best.size == 1:
        reason = "fits on one GPU"
    else:
        reason = f"the smallest size that fits with a context of {best.memory.setting.max_model_len} tokens"
    return best, [
        f"{reason}, with room for {best.room} requests of {best.request} tokens in each replica ({best.needed} are"
        " asked): replicas need no all-reduce, so more of them beat larger ones"
    ], []  # fmt: skip


def _latency(shape: Shape, fitting: list[Candidate], wish: Wish) -> _Picked:
    best = fitting[0]
    for way in fitting[1:]:
        if way.speeds[0].per_user >= WORTH_IT * best.speeds[0].per_user:
            best = way
    alone, first = best.speeds[0].per_user, fitting[0]
    reason = f"one stream gets {alone:.0f} tokens/s on {best.size} GPUs"
    if best.size > first.size:
        reason += f", {first.speeds[0].per_user:.0f} on {first.size}"
    larger = [way for way in fitting if way.size > best.size]
    if larger:
        reason += f"; {larger[0].size} GPUs would give {larger[0].speeds[0].per_user:.0f}, less than a tenth more"
    return best, [reason], []


def _slo(shape: Shape, fitting: list[Candidate], wish: Wish) -> _Picked:
    meeting = [way for way in fitting if not _missed(way, wish) and way.room >= way.needed]
    if meeting:
        best = meeting[0]
        return best, [f"the smallest size that meets the goal: {_figures(best, wish)}"], []
    best = min(fitting, key=lambda way: (len(_missed(way, wish)), -way.batch.per_user))
    warning = f"the goal is not met: {'; '.join(_missed(best, wish)) or f'room for {best.room} of {best.needed}'}"
    return best, [f"nearest to the goal: {_figures(best, wish)}"], [warning]


def _missed(way: Candidate, wish: Wish) -> list[str]:
    goal, missed = wish.objective, []
    if goal.tokens_per_second_per_user and way.batch.per_user < goal.tokens_per_second_per_user:
        missed.append(f"{way.batch.per_user:.0f} tokens/s a user, {goal.tokens_per_second_per_user:g} are asked")
    if goal.ttft_p99 and way.ttft > goal.ttft_p99:
        missed.append(f"first token after {way.ttft:.2f} s at worst, {goal.ttft_p99:g} are asked")
    return missed


def _figures(way: Candidate, wish: Wish) -> str:
    return (
        f"{way.batch.per_user:.0f} tokens/s a user with {way.batch.batch} at once in each replica,"
        f" first token after {way.ttft:.2f} s when all arrive together"
    )


def _skipped(considered: tuple[Candidate, ...], chosen: Candidate) -> list[str]:
    small = [way for way in considered if way.size < chosen.size and not way.fits]
    if not small:
        return []
    worst = small[-1]
    left = f"{worst.memory.kv_cache / 1024**3:.1f} GiB would be left for the KV cache"
    return [f"{worst.size} GPU{'s' * (worst.size > 1)} a replica is too few: {left}"]
