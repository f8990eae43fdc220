"""Which variant of a kernel is fastest on this machine: measured at its first use for a class of shapes, and kept.

What is measured are the kernel's own calls on the very tensors that it is given first. SPARSE_MODELS_VARIANT=default, or a
variant written out as vectors=4,together=8 (what is not named is as by default), fixes it, and nothing is measured.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.contention import Usage
from sparse_models.errors import InputError
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.kept_choices import Choice, read, write
from sparse_models.kernels.variant import Variant

ASKED = "SPARSE_MODELS_VARIANT"
CLEARLY = 1.03  # times as fast as the default, in every round: so that what is alike stays the same, and no noise chooses
ROUNDS, ROUND_SECONDS, MOST_CALLS = 4, 2e-3, 20  # a round is the best of some calls of each variant
LEFT = 2  # variants beside the default that are looked at again after the first round
TRIES = 3  # where another process disturbs them
MOST_HELD = 2**12  # shapes whose variants are known at once

_LOCK = threading.Lock()  # held by what is being measured
_found: dict[tuple[Any, ...], Variant] = {}
_held: dict[str, Choice] | None = None


class Work(NamedTuple):
    """A kernel's call: which, the features of its layers, samples, non-zeros, number type, and threads that there are."""

    kernel: str
    sizes: tuple[int, ...]
    batch: int
    nnz: int
    dtype: torch.dtype
    threads: int

    def __str__(self) -> str:
        """Return the class whose works share a variant: sizes, batch and density to powers of 2."""
        weights = sum(inputs * outputs for inputs, outputs in pairwise(self.sizes))
        # Rounded so that levels which are usual, as .5, .8 and .9, lie well within a class.
        density = 2 ** math.floor(math.log2(max(1.0, weights / max(1, self.nnz))) + 0.2)
        sizes = "x".join(str(_power(size)) for size in self.sizes)
        kind = str(self.dtype).removeprefix("torch.")
        team = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.kernel} {sizes}b{_power(self.batch)}, 1/{density} kept, {kind}, {team}"


def _power(number: int) -> int:
    return int(2 ** round(math.log2(max(1, number))))


Candidates = Callable[[], Sequence[Variant]]  # the default first
Call = Callable[[Variant], Any]  # tensors, in whatever tuples and lists


def variant_for(
    asked: tuple[str, tuple[int, ...], int, int, torch.dtype], candidates: Candidates, call: Call | None
) -> Variant:
    """Return the variant for what is asked, a Work but for its threads: measured by way of `call` where its class is not known.

    Without `call` nothing is measured, and what is not known is the default.
    """
    key = (asked, torch.get_num_threads())
    variant = _found.get(key)
    if variant is None:
        variant, is_final = _chosen(Work(*asked, threads()), candidates(), call)
        if is_final:
            if len(_found) >= MOST_HELD:
                _found.clear()
            _found[key] = variant
    return variant


def _chosen(work: Work, candidates: Sequence[Variant], call: Call | None) -> tuple[Variant, bool]:
    """Return the variant for a work, and whether it is that for good."""
    default, asked, choice = candidates[0], _asked(), known().get(str(work))
    if asked is not None:
        variant = default._replace(**asked)
        is_able = variant.vectors > 0 or any(one.vectors == 0 for one in candidates)
        return _limited(variant if is_able else variant._replace(vectors=default.vectors), work.threads), True
    if choice is not None:
        return _limited(choice.variant, work.threads), True
    if _held is None and call is not None and len(candidates) > 1:
        return _measured_now(work, candidates, call)
    return default, _held is not None or call is not None


def _measured_now(work: Work, candidates: Sequence[Variant], call: Call) -> tuple[Variant, bool]:
    """Measure a work and keep the choice; where that is disturbed, the default is it for this process, and nothing is kept.

    What the default consists of is measured before. While something is being measured, another thread does not disturb it, and
    whatever else it consists of is as by default.
    """
    if not _LOCK.locked():
        call(candidates[0])
    if not _LOCK.acquire(blocking=False):
        return candidates[0], False
    try:
        choice = measured(candidates, call)
    finally:
        _LOCK.release()
    if choice is None:
        return candidates[0], True
    known()[str(work)] = choice
    write({str(work): choice})
    return choice.variant, True


def _limited(variant: Variant, threads: int) -> Variant:
    return variant._replace(threads=min(variant.threads, threads), vector_bytes=min(variant.vector_bytes, vector_bytes()))


@cache
def known() -> dict[str, Choice]:
    """Return the choices that hold in this process, by the class of their works: those of the cache, read once, and its own."""
    return read() if _held is None else _held


def hold(choices: Mapping[str, Any]) -> None:
    """Have these choices alone hold in this process, plain as `plain` gives them, and measure nothing from here on."""
    global _held  # noqa: PLW0603
    forget()
    _held = {name: Choice.of(plain) for name, plain in choices.items()}


def plain(choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return choices as JSON has them."""
    return {name: choice.plain() for name, choice in choices.items()}


def anew() -> None:
    """Measure everything anew from here on."""
    forget()
    known().clear()


def forget() -> None:
    """Have the environment and the cache read anew."""
    global _held  # noqa: PLW0603
    _held = None
    _found.clear()
    known.cache_clear()
    _asked.cache_clear()


@cache
def _asked() -> dict[str, int] | None:
    """Return the numbers that the environment fixes; None where it fixes none, raises InputError where they are not such."""
    text = os.environ.get(ASKED, "").strip()
    if text in ("", "measured"):
        return None
    return {} if text == "default" else dict(_numbers(text))


def _numbers(text: str) -> Iterator[tuple[str, int]]:
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        is_power = number.isdecimal() and int(number).bit_count() == 1
        if name not in Variant._fields or not (is_power or (number.isdecimal() and name in ("vectors", "threads"))):
            raise InputError(
                f"{ASKED}: expected default, measured, or numbers as in {Variant(4, 8, 32, 2)} (together and vector_bytes "
                f"powers of 2), got {part!r}; unset it to have variants measured"
            )
        yield name, int(number)


def measured(candidates: Sequence[Variant], call: Call) -> Choice | None:
    """Return which of some variants is the fastest, the first unless another clearly is; None where that was disturbed."""
    began = time.perf_counter()
    expected = call(candidates[0])
    right = [variant for variant in candidates if _alike(call(variant), expected)]  # and compiled
    for _ in range(TRIES):
        before = Usage.now()
        times = _raced(right, call)
        if not before.was_disturbed(Usage.now()):
            break
    else:
        return None
    tried = {variant: relative(times, variant) for variant in times}
    return Choice(fastest(times), tried, time.perf_counter() - began)


def _raced(variants: Sequence[Variant], call: Call) -> dict[Variant, list[float]]:
    """Return the seconds of each variant in each round, those of the first round alone for what is far behind in it."""
    default, times = variants[0], {variant: list[float]() for variant in variants}
    one = _best(call, default, 1)
    calls = max(1, min(MOST_CALLS, int(ROUND_SECONDS / one)))
    left = list(variants)
    for number in range(ROUNDS):
        for variant in left if number % 2 else reversed(left):
            times[variant].append(_best(call, variant, calls))
        if number == 0:
            others = sorted(left[1:], key=lambda variant: times[variant])
            left = [default, *others[:LEFT]]
    return times


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
