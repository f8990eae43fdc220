"""Variants of a kernel against its default, in turns: which is the fastest, unless that is a matter of noise."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.contention import Usage
from sparse_models.kernels.variant import Choice, Variant

CLEARLY = 1.03  # times as fast as the default, in every round: so that what is alike stays the same, and no noise chooses
ROUNDS, ROUND_SECONDS, MOST_CALLS = 4, 2e-3, 20  # a round is the best of some calls of each variant
LEFT = 2  # variants beside the default that are looked at again after the first round
TRIES = 8  # rounds more, at most, where another process disturbs some

Call = Callable[[Variant], Any]  # tensors, in whatever tuples and lists


def measured(candidates: Sequence[Variant], call: Call) -> Choice | None:
    """Return which of some variants is the fastest, the first unless another clearly is; None where that was disturbed."""
    began = time.perf_counter()
    expected = call(candidates[0])
    times = _raced([variant for variant in candidates if _alike(call(variant), expected)], call)  # all are compiled by now
    if times is None:
        return None
    tried = {variant: relative(times, variant) for variant in times}
    return Choice(fastest(times), tried, time.perf_counter() - began)


def _raced(variants: Sequence[Variant], call: Call) -> dict[Variant, list[float]] | None:
    """Return the seconds of each variant in each round that nothing disturbed; None where there were too few such.

    Of what is far behind in the first round there are none of others.
    """
    default, times = variants[0], {variant: list[float]() for variant in variants}
    calls = max(1, min(MOST_CALLS, int(ROUND_SECONDS / _best(call, default, 1))))
    left = list(variants)
    for _ in range(ROUNDS + TRIES):
        before = Usage.now()
        left.reverse()  # so that each is as often before the others as behind
        found = {variant: _best(call, variant, calls) for variant in left}
        if before.was_disturbed(Usage.now()):
            continue
        for variant, seconds in found.items():
            times[variant].append(seconds)
        if len(times[default]) == ROUNDS:
            return times
        if len(times[default]) == 1:
            others = sorted(found.keys() - {default}, key=lambda variant: found[variant])
            left = [default, *others[:LEFT]]
    return None


def _best(call: Call, variant: Variant, calls: int) -> float:
    """Return the least seconds of some calls: whatever else there is only ever takes longer."""
    best = math.inf
    for _ in range(calls):
        start = time.perf_counter()
        call(variant)
        best = min(best, time.perf_counter() - start)
    return best


def relative(times: Mapping[Variant, Sequence[float]], variant: Variant) -> float:
    """Return the time of a variant over that of the first, as the median of the rounds in which both were."""
    default = next(iter(times.values()))
    ratios = sorted(own / its for own, its in zip(times[variant], default, strict=False))
    return ratios[len(ratios) // 2]


def fastest(times: Mapping[Variant, Sequence[float]]) -> Variant:
    """Return the variant of the least time that is clearly faster than the first in every round; the first where none is."""
    default, *_ = times
    clear = [
        variant
        for variant, own in times.items()
        if len(own) == ROUNDS and all(its > CLEARLY * mine for mine, its in zip(own, times[default], strict=True))
    ]
    return min(clear, key=lambda variant: relative(times, variant), default=default)


def _alike(one: Any, other: Any) -> bool:
    """Tell whether results are the same but for rounding: a variant that gives anything else is none."""
    return all(
        torch.allclose(mine, its, rtol=1e-3, atol=1e-3 * float(its.abs().max()) if its.numel() else 0.0, equal_nan=True)
        for mine, its in zip(_tensors(one), _tensors(other), strict=True)
    )


def _tensors(result: Any) -> Iterable[Tensor]:
    if isinstance(result, Tensor):
        yield result
    else:
        for part in result:
            yield from _tensors(part)
