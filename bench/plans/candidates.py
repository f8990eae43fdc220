"""What the choosing processes measured in, the plans that may be the fastest out, and which of those that were measured is.

The fastest kind of each layer need not make the fastest model: a dense layer may take longer where it reads what a sparse one
puts out. So a few plans are measured whole, and these measurements choose.
"""

import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from bench.models.layers import Linear
from bench.models.selected import NONE
from bench.plans.arms import CALLED, DENSE, PLAIN, Choices, Kind, arm_of
from bench.plans.timing import Passes
from bench.plans.whole import Races

# Kinds that are as fast as the fastest but for this factor are alike: of them the one is taken that keeps most of the weights.
# So are plans, whose gains are those of the whole.
ALIKE, ALIKE_PLANS = 1.1, 1.05
MOST_SAVED = 0.8  # of what the layers save that pay by themselves: the fewest of them that save so much are a plan
# A kind that is slower than dense by this at every layer, in as many choosing processes, is measured no further.
HOPELESS, AFTER = 0.8, 3

Processes = Sequence[Mapping[str, Passes]]  # by arm


class Measured(NamedTuple):
    """What is known of a model: its layers, the kinds that they can be, and what processes said."""

    layers: Sequence[Linear]
    kinds: Sequence[Kind]
    rivals: Sequence[str]  # dense in other ways
    choosing: Processes
    telling: Processes = ()  # which have no part in choosing
    plans: Sequence[Choices] = ()  # that processes measured whole; none while nothing is known to make them of
    races: Races = ()  # of the model as it is to be, and of its rivals, against the model as it is
    evens: Processes = ()  # with kinds at other sparsities
    stored: Mapping[str, int] = MappingProxyType({})  # bytes, by arm
    kept: Mapping[str, Sequence[float]] = MappingProxyType({})  # of all absolute weights, by kind and layer
    swapped_bytes: int | None = None
    file: str = NONE  # of masks
    is_pruned: bool = False  # by torch.nn.utils.prune, as the user's function returns it


def speedups(processes: Processes, arm: str, number: int, over: str = DENSE) -> list[float]:
    """Return how many times as fast as in another arm a layer is in an arm, as each process that timed it says."""
    return [one[over].layers[number] / one[arm].layers[number] for one in processes if arm in one]


def gains(processes: Processes, arm: str) -> list[float]:
    """Return how many times as fast as it is a model is in an arm whose layers are watched, as each process says."""
    return [
        one[PLAIN].whole / one.get(CALLED, one[PLAIN]).whole * one[DENSE].whole / one[arm].whole
        for one in processes
        if arm in one
    ]


def may_pay(kind: Kind, measured: Measured) -> bool:
    """Tell whether a kind may still be the choice for some layer."""
    there = [one for one in measured.choosing if str(kind) in one]
    return len(there) < AFTER or any(
        speedup > HOPELESS for number in range(len(measured.layers)) for speedup in speedups(there, str(kind), number)
    )


def kept_by(measured: Measured, choices: Choices) -> float:
    """Return the share of the weights that a plan keeps, each layer's by their absolute values."""
    sizes = [layer.inputs * layer.outputs for layer in measured.layers]
    shares = [1.0 if kind is None else measured.kept[str(kind)][number] for number, kind in enumerate(choices)]
    return sum(size * share for size, share in zip(sizes, shares, strict=True)) / sum(sizes)


def candidates(measured: Measured) -> list[Choices]:
    """Return the plans that are worth measuring, each once.

    They are: every layer of one kind, for each kind; every layer of its own fastest kind; only those that pay by themselves;
    and of those the fewest that save most.
    """
    kinds = [kind for kind in measured.kinds if any(str(kind) in one for one in measured.choosing) and may_pay(kind, measured)]
    fastest, saved = list[Kind](), dict[int, float]()
    for number in range(len(measured.layers)) if kinds else ():
        own = {kind: statistics.median(speedups(measured.choosing, str(kind), number)) for kind in kinds}
        alike = [kind for kind in kinds if own[kind] * ALIKE >= max(own.values())]
        best = max(alike, key=lambda kind: measured.kept[str(kind)][number])
        fastest.append(best)
        if own[best] > 1:
            seconds = statistics.median(one[DENSE].layers[number] for one in measured.choosing)
            saved[number] = seconds * (1 - 1 / own[best])
    few, left = set[int](), MOST_SAVED * sum(saved.values())
    for number in sorted(saved, key=saved.__getitem__, reverse=True):
        if left > 0:
            few.add(number)
        left -= saved[number]
    found: list[Choices] = [
        *([kind] * len(measured.layers) for kind in kinds),
        fastest,
        *([kind if number in which else None for number, kind in enumerate(fastest)] for which in (saved.keys(), few)),
    ]
    return list({arm_of(one): one for one in found if any(one)}.values())


def tried(measured: Measured) -> list[tuple[Choices, float]]:
    """Return the plans that choosing processes measured, and how many times as fast as it is the model is by each."""
    every = measured.plans or candidates(measured)
    return [(one, statistics.median(gain)) for one in every if (gain := gains(measured.choosing, arm_of(one)))]


def best_plan(measured: Measured) -> Choices:
    """Return the plan that is fastest, or about as fast and keeps more of the weights; none for any layer where all lose."""
    found = [(one, gain) for one, gain in tried(measured) if gain > 1]
    most = max((gain for _, gain in found), default=0.0)
    alike = [one for one, gain in found if gain * ALIKE_PLANS >= most]
    return max(alike, key=lambda one: kept_by(measured, one), default=[None] * len(measured.layers))
