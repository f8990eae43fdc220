"""Which variant of a kernel, or plan on a GPU, is fastest here: measured at its first use for a class of shapes, and kept.

What is measured are the kernel's own calls on the very tensors that it is given first. SPARSE_MODELS_VARIANT=default, or a
variant written out as vectors=4,together=8 (what is not named is as by default), fixes it, and nothing is measured: then all
plans on a GPU are those of rules.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from sparse_models.errors import InputError
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.kept_choices import read, write
from sparse_models.kernels.race import Call, V, measured
from sparse_models.kernels.variant import Choice, Variant

ASKED = "SPARSE_MODELS_VARIANT"
MOST_HELD = 2**12  # shapes whose variants are known at once

Asked = tuple[str, tuple[int, ...], int, int, torch.dtype]  # a Work but for what it runs on
Race = Callable[[Sequence[V], Call[V]], Choice | None]  # None where that was disturbed
_LOCK = threading.Lock()  # held by what is being measured
_found: dict[tuple[Asked, int | str], Any] = {}
_held: dict[str, Choice] | None = None
disturbed: set[str] = set()  # classes of which in this process nothing could be measured
GIVEN_UP = 3  # after so many of them this process measures nothing further: the machine is busy


class Work(NamedTuple):
    """A kernel's call: which, the features of its layers, samples, non-zeros, number type, and a CPU's threads or a card."""

    kernel: str
    sizes: tuple[int, ...]
    batch: int
    nnz: int
    dtype: torch.dtype
    runs_on: int | str

    def __str__(self) -> str:
        """Return the class whose works share a variant: sizes, batch and density to powers of 2."""
        weights = sum(inputs * outputs for inputs, outputs in pairwise(self.sizes))
        # Rounded so that levels which are usual, as .5, .8 and .9, lie well within a class.
        density = 2 ** math.floor(math.log2(max(1.0, weights / max(1, self.nnz))) + 0.2)
        sizes = "x".join(str(_power(size)) for size in self.sizes)
        kind = str(self.dtype).removeprefix("torch.")
        place = self.runs_on if isinstance(self.runs_on, str) else f"{self.runs_on} thread{'s' * (self.runs_on != 1)}"
        return f"{self.kernel} {sizes}b{_power(self.batch)}, 1/{density} kept, {kind}, {place}"


def _power(number: int) -> int:
    return int(2 ** round(math.log2(max(1, number))))


Candidates = Callable[[], Sequence[Variant]]  # the default first


def variant_for(asked: Asked, candidates: Candidates, call: Call[Variant] | None) -> Variant:
    """Return the variant for what is asked: measured by way of `call` where nothing is known of its class.

    Without `call` nothing is measured, and what is not known is the default.
    """
    key = (asked, torch.get_num_threads())
    variant: Variant | None = _found.get(key)
    if variant is None:
        tried, team, fixed = candidates(), threads(), _asked()
        if fixed is not None:
            variant, is_final = _limited(_fixed(tried, fixed), team), True
        else:
            variant, is_final = _chosen(
                Work(*asked, team), tried, call, measured, lambda found: _limited(Variant(*found), team)
            )
        _keep(key, variant, is_final=is_final)
    return variant


def plan_for(asked: Asked, card: str, candidates: Callable[[], Sequence[V]], call: Call[V] | None, race: Race[V]) -> V:
    """Return the plan for what is asked of a card, by its name: likewise, measured by a race of the candidates."""
    key = (asked, card)
    plan: V | None = _found.get(key)
    if plan is None:
        first: Any
        first, *_ = tried = candidates()
        plan, is_final = first, True
        if _asked() is None:
            kinds = [type(number) for number in first]
            made = lambda found: first._make(kind(number) for kind, number in zip(kinds, found, strict=True))  # noqa: E731
            plan, is_final = _chosen(Work(*asked, card), tried, call, race, made)
        _keep(key, plan, is_final=is_final)
    return plan


def _keep(key: tuple[Asked, int | str], variant: tuple[int, ...], *, is_final: bool) -> None:
    if is_final:
        if len(_found) >= MOST_HELD:
            _found.clear()
        _found[key] = variant


def _fixed(candidates: Sequence[Variant], numbers: Mapping[str, int]) -> Variant:
    """Return the default with these numbers, as far as a kernel with such candidates can have them."""
    default = candidates[0]
    variant = default._replace(**numbers)
    is_able = variant.vectors > 0 or any(one.vectors == 0 for one in candidates)
    return variant if is_able else variant._replace(vectors=default.vectors)


def _chosen(
    work: Work,
    candidates: Sequence[V],
    call: Call[V] | None,
    race: Race[V],
    made: Callable[[tuple[int, ...]], V],
) -> tuple[V, bool]:
    """Return the variant for a work, `made` of the numbers that are chosen, and whether it is that for good."""
    choice = known().get(str(work))
    if choice is None and _held is None and call is not None and len(candidates) > 1 and len(disturbed) < GIVEN_UP:
        choice, is_final = _measured_now(work, candidates, call, race)
        return (candidates[0] if choice is None else made(choice.variant)), is_final
    if choice is not None:
        return made(choice.variant), True
    return candidates[0], _held is not None or call is not None


def _measured_now(work: Work, candidates: Sequence[V], call: Call[V], race: Race[V]) -> tuple[Choice | None, bool]:
    """Measure a work and keep the choice; where that is disturbed, the default is it for this process, and nothing is kept.

    What the default consists of is measured before. While something is being measured, another thread does not disturb it, and
    whatever else it consists of is as by default.
    """
    if not _LOCK.locked():
        call(candidates[0])
    if not _LOCK.acquire(blocking=False):
        return None, False
    try:
        choice = race(candidates, call)
    finally:
        _LOCK.release()
    if choice is None:
        disturbed.add(str(work))
    else:
        known()[str(work)] = choice
        write({str(work): choice})
    return choice, True


def _limited(variant: Variant, threads: int) -> Variant:
    return variant._replace(threads=min(variant.threads, threads), vector_bytes=min(variant.vector_bytes, vector_bytes()))


@cache
def known() -> dict[str, Choice]:
    """Return the choices that hold in this process, by the class of their works: those of the cache, read once, and its own."""
    return read() if _held is None else _held


def retry() -> None:
    """Try again what could not be measured in this process, or was not, as it had given up."""
    for key in [(asked, place) for asked, place in _found if str(Work(*asked, place)) not in known()]:
        del _found[key]
    disturbed.clear()


def in_use() -> dict[str, Choice]:
    """Return those of the choices that were looked up in this process."""
    names = {str(Work(*asked, place)) for asked, place in _found}
    return {name: one for name, one in known().items() if name in names}


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
    disturbed.clear()
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
        if name not in Variant._fields or not (
            is_power or (number.isdecimal() and name in ("vectors", "threads", "panel_bytes"))
        ):
            raise InputError(
                f"{ASKED}: expected default, measured, or numbers as in {Variant(4, 8, 32, 2)} (together and vector_bytes "
                f"powers of 2), got {part!r}; unset it to have variants measured"
            )
        yield name, int(number)
