"""Variants of a kernel against its default, in turns: which is the fastest, unless that is a matter of noise."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparse_models.kernels.contention import Usage
from sparse_models.kernels.variant import Choice

CLEARLY = 1.03  # times as fast as the default, in every round: so that what is alike stays the same, and no noise chooses
ROUNDS, ROUND_SECONDS, MOST_CALLS = 4, 2e-3, 20  # a round is the best of some calls of each variant
LEFT = 2  # variants beside the default that are looked at again after the first round
TRIES = 8  # rounds more, at most, where another process disturbs some

V = TypeVar("V", bound="tuple[int, ...]")  # a Variant, or a GPU's plan: named numbers
Call = Callable[[V], Any]  # tensors, in whatever tuples and lists
Stopwatch = Callable[[Callable[[], Any], int], float]  # a call and how often to call it in, its seconds out


def measured(candidates: Sequence[V], call: Call[V], stopwatch: Stopwatch | None = None) -> Choice | None:
    """Return which of some variants is the fastest, the first unless another clearly is; None where that was disturbed.

    By a stopwatch of its own a device tells what it took itself, whatever disturbs the host.
    """
    began = time.perf_counter()
    expected = call(candidates[0])
    # All are compiled by now.
    times = _raced([variant for variant in candidates if _alike(call(variant), expected)], call, stopwatch)
    if times is None:
        return None
    tried = {variant: relative(times, variant) for variant in times}
    variant: Any = fastest(times)
    return Choice(variant, tried, time.perf_counter() - began, variant._fields)


def _raced(variants: Sequence[V], call: Call[V], stopwatch: Stopwatch | None) -> dict[V, list[float]] | None:
    """Return the seconds of each variant in each round that nothing disturbed; None where there were too few such.

    Of what is far behind in the first round there are none of others.
    """
    default, times = variants[0], {variant: list[float]() for variant in variants}

    def seconds_of(variant: V, calls: int) -> float:
        return (stopwatch or least)(lambda: call(variant), calls)

    calls = max(1, min(MOST_CALLS, int(ROUND_SECONDS / seconds_of(default, 1))))
    left = list(variants)
    for _ in range(ROUNDS + TRIES):
        before = Usage.now()
        left.reverse()  # so that each is as often before the others as behind
        found = {variant: seconds_of(variant, calls) for variant in left}
        if stopwatch is None and before.was_disturbed(Usage.now()):
            continue
        for variant, seconds in found.items():
            times[variant].append(seconds)
        if len(times[default]) == ROUNDS:
            return times
        if len(times[default]) == 1:
            others = sorted(found.keys() - {default}, key=lambda variant: found[variant])
            left = [default, *others[:LEFT]]
    return None


def least(call: Callable[[], Any], calls: int) -> float:
    """Return the least seconds of some calls: whatever else there is only ever takes longer."""
    best = math.inf
    for _ in range(calls):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def relative(times: Mapping[V, Sequence[float]], variant: V) -> float:
    """Return the time of a variant over that of the first, as the median of the rounds in which both were."""
    default = next(iter(times.values()))
    ratios = sorted(own / its for own, its in zip(times[variant], default, strict=False))
    return ratios[len(ratios) // 2]


def fastest(times: Mapping[V, Sequence[float]]) -> V:
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
    return all(_is_close(mine, its) for mine, its in zip(_tensors(one), _tensors(other), strict=True))


def _is_close(mine: Tensor, its: Tensor) -> bool:
    off = max(1e-3, 2 * torch.finfo(its.dtype).eps)  # two numbers of 16 bit that follow one another differ by up to one
    largest = float(its.nan_to_num(0.0, 0.0, 0.0).abs().max()) if its.numel() else 0.0  # of those that are numbers
    return torch.allclose(mine, its, rtol=off, atol=off * largest, equal_nan=True)


def _tensors(result: Any) -> Iterable[Tensor]:
    if isinstance(result, Tensor):
        yield result
    else:
        for part in result:
            yield from _tensors(part)
