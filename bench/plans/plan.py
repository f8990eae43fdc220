"""What processes measured of a model's layers in, the plan out: for each the fastest kind that pays, and what the whole gains.

Of several kinds the one that looks fastest looks faster than it is. So every other process chooses, and what is told of the
choice (its speed-up, its verdict, what it is predicted to save) the rest say, which had no part in it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from bench.findings.break_even import crossing
from bench.models.layers import Linear
from bench.models.selected import NONE
from bench.plans.arms import CALLED, DENSE, PLAIN, Kind, Swap
from bench.plans.in_place import Passes
from bench.plans.whole import Raced, Races, RivalRaced, interval, planned_of, rivals_of
from bench.statistics.intervals import Interval, median_interval
from bench.statistics.verdicts import is_clear, verdicts

AGREES = 0.1  # by which predicted and measured gain may differ
# Kinds that are as fast as the fastest but for this factor are alike: of them the one is taken that keeps most of the weights.
ALIKE = 1.1
# A kind that is slower than dense by this at every layer, in as many processes, is measured no further.
HOPELESS, AFTER = 0.8, 4
LEAST_TELLING = 3


class Measured(NamedTuple):
    """What is known of a model: its layers, the kinds that they can be, and what processes said."""

    layers: Sequence[Linear]
    kinds: Sequence[Kind]
    rivals: Sequence[str]  # dense in other ways
    passes: Sequence[Mapping[str, Passes]]  # of each process, by arm
    races: Races = ()  # of the model as it is to be, and of its rivals, against the model as it is
    evens: Sequence[Mapping[str, Passes]] = ()  # with kinds at other sparsities
    stored: Mapping[str, int] = MappingProxyType({})  # bytes, by arm
    kept: Mapping[str, Sequence[float]] = MappingProxyType({})  # of all absolute weights, by kind and layer
    swapped_bytes: int | None = None
    file: str = NONE  # of masks
    is_pruned: bool = False  # by torch.nn.utils.prune, as the user's function returns it

    @property
    def choosing(self) -> Sequence[Mapping[str, Passes]]:
        """The processes that choose."""
        return self.passes[0::2]

    @property
    def telling(self) -> Sequence[Mapping[str, Passes]]:
        """The processes that tell."""
        return self.passes[1::2]


class Option(NamedTuple):
    """A kind that a layer can be: seconds, its speed-up over dense, the verdict on it, and what the choosing processes say."""

    kind: Kind
    seconds: float
    speedup: Interval
    verdict: str
    kept: float  # of the sum of all absolute weights
    chosen_by: float
    is_clear: bool


class LayerRival(NamedTuple):
    """A layer that stays dense, in another way: its speed-up over dense as it is, and the verdicts on that."""

    name: str
    speedup: Interval
    verdict: str
    against_choice: str | None  # "faster" where it beats the layer's choice


class LayerPlan(NamedTuple):
    """What is to become of a layer; without a choice it stays dense."""

    layer: Linear
    dense_seconds: float
    rivals: Sequence[LayerRival]  # which are told and never chosen
    options: Sequence[Option]  # the fastest first, as the choosing processes say
    leading: Option | None  # that is the choice, or would be if its verdict were "faster"
    choice: Option | None
    break_even: Interval | None = None  # of the leading kind of layer: 0 for below and 2 for above all that was measured
    measured_at: Sequence[float] = ()  # sparsities


class Chosen(NamedTuple):
    """The plans of all layers, and whether more processes would change nothing."""

    layers: Sequence[LayerPlan]
    is_decided: bool
    file: str = NONE

    @property
    def swaps(self) -> list[Swap]:
        """The calls that make the plan."""
        by_kind: dict[Kind, list[str]] = {}
        for one in self.layers:
            if one.choice:
                by_kind.setdefault(one.choice.kind, []).append(one.layer.name)
        return [Swap(*kind, names, self.file) for kind, names in by_kind.items()]


class Plan(NamedTuple):
    """What is advised: for each layer, and of the whole where any is to be exchanged."""

    layers: Sequence[LayerPlan]
    calls: Sequence[Swap]  # none where the whole is not faster
    predicted: Interval | None  # the speed-up of the whole
    raced: Raced | None  # None where it was not measured
    rivals: Sequence[RivalRaced]  # the whole model, dense in other ways
    dense_bytes: int  # of parameters and buffers
    bytes: int | None
    processes: int  # in all
    is_pruned: bool = False

    @property
    def agrees(self) -> bool:
        """Whether predicted and measured gain are about the same."""
        both = (self.predicted, self.raced)
        return None not in both and abs(math.log(self.predicted.median / self.raced.speedup.median)) <= math.log1p(AGREES)  # type: ignore[union-attr]


def chosen(measured: Measured) -> Chosen:
    """Return for each layer the kind that the choosing processes find fastest of those whose verdict is "faster"."""
    if len(measured.telling) < 1:
        return Chosen([], is_decided=False)
    names = {(number, kind): f"{number} {kind}" for number in range(len(measured.layers)) for kind in measured.kinds}
    told = {name: _speedups(measured.telling, str(kind), number) for (number, kind), name in names.items()}
    verdict = verdicts(told)
    plans: list[LayerPlan] = []
    for number, layer in enumerate(measured.layers):
        options = [
            _option(measured, number, kind, told[name], verdict[name])
            for kind in measured.kinds
            if told[name := names[number, kind]]
        ]
        options.sort(key=lambda one: one.chosen_by, reverse=True)
        faster = [one for one in options if one.verdict == "faster"]
        choice = _leading(faster)
        seconds = statistics.median(one[DENSE].layers[number] for one in measured.passes)
        leading = choice or _leading(options)
        arms = _arms_of(measured.evens, leading.kind.layer) if leading else {}
        plans.append(
            LayerPlan(layer, seconds, [], options, leading, choice, _break_even(measured.evens, arms, number), list(arms))
        )
    enough = len(measured.telling) >= LEAST_TELLING
    plans = [one._replace(rivals=rivals) for one, rivals in zip(plans, _rivals(measured, plans), strict=True)]
    return Chosen(plans, enough and all(one.leading is None or one.leading.is_clear for one in plans), measured.file)


def _rivals(measured: Measured, plans: Sequence[LayerPlan]) -> list[list[LayerRival]]:
    """Return for each layer what dense in other ways gains over dense, and whether that is more than its choice does."""
    told, against = dict[str, list[float]](), dict[str, list[float]]()
    for number, one in enumerate(plans):
        for name in measured.rivals:
            told[f"{number} {name}"] = _speedups(measured.telling, name, number)
            if one.choice:
                own = str(one.choice.kind)
                against[f"{number} {name}"] = _speedups([p for p in measured.telling if own in p], name, number, own)
    verdict, beats = verdicts(told), verdicts(against)
    return [
        [
            LayerRival(name, interval(told[key]), verdict[key], beats.get(key))
            for name in measured.rivals
            if told[key := f"{number} {name}"]
        ]
        for number in range(len(plans))
    ]


def _leading(options: Sequence[Option]) -> Option | None:
    """Return the fastest, or one that is about as fast and keeps more of the weights."""
    alike = [one for one in options if one.chosen_by * ALIKE >= options[0].chosen_by]
    return max(alike, key=lambda one: one.kept, default=None)


def may_pay(kind: Kind, measured: Measured) -> bool:
    """Tell whether a kind may still be the choice for some layer."""
    there = [one for one in measured.passes if str(kind) in one]
    return len(there) < AFTER or any(
        speedup > HOPELESS for number in range(len(measured.layers)) for speedup in _speedups(there, str(kind), number)
    )


def _speedups(passes: Sequence[Mapping[str, Passes]], arm: str, number: int, over: str = DENSE) -> list[float]:
    return [one[over].layers[number] / one[arm].layers[number] for one in passes if arm in one]


def _option(measured: Measured, number: int, kind: Kind, told: Sequence[float], verdict: str) -> Option:
    seconds = statistics.median(one[str(kind)].layers[number] for one in measured.passes if str(kind) in one)
    chosen_by = statistics.median(_speedups(measured.choosing, str(kind), number))
    return Option(
        kind, seconds, interval(told), verdict, measured.kept[str(kind)][number], chosen_by, len(told) > 1 and is_clear(told)
    )


def _arms_of(evens: Sequence[Mapping[str, Passes]], layer: str) -> dict[float, str]:
    """Return the arms of a kind of layer by their sparsities, rising."""
    arms = {name: name.split() for name in (evens[0] if evens else ())}
    return dict(sorted((float(words[1]), name) for name, words in arms.items() if words[0] == layer and len(words) > 1))


def _break_even(evens: Sequence[Mapping[str, Passes]], arms: Mapping[float, str], number: int) -> Interval | None:
    """Return from which sparsity on a layer is as fast as dense, each process having a curve of its own."""
    if len(arms) <= 1:
        return None
    return median_interval([crossing(list(arms), [_speedups([one], arm, number)[0] for arm in arms.values()]) for one in evens])


def predicted(one: Mapping[str, Passes], choices: Mapping[int, Kind], layers: int) -> float:
    """Return the speed-up of the whole model that one process promises of the layers' choices.

    From a pass through dense go the seconds that the layers save in it, both as the same stopwatches tell; a fast path that
    no layer is called on is lost. What else takes longer or less beside
    layers of a kind, as what reads their outputs in other strides, is taken by the share of the layers that are of it.
    """
    saved = sum(one[DENSE].layers[number] - one[str(kind)].layers[number] for number, kind in choices.items())
    for kind in set(choices.values()):
        share = sum(other == kind for other in choices.values()) / layers
        saved += share * (one[DENSE].rest - one[str(kind)].rest)
    called = one.get(CALLED, one[PLAIN]).whole
    before = one[DENSE].whole
    return one[PLAIN].whole / called * before / max(before - saved, before * 1e-3)


def plan_of(measured: Measured) -> Plan:
    """Return what is advised by what was measured: layers to exchange, unless the whole is then not shown to be faster."""
    found = chosen(measured)
    choices = {number: one.choice.kind for number, one in enumerate(found.layers) if one.choice}
    promised = [predicted(one, choices, len(found.layers)) for one in measured.telling] if choices else []
    raced = planned_of(measured.races) if choices else None
    calls = found.swaps if raced is None or raced.verdict == "faster" else []
    processes = len(measured.passes) + len(measured.races) + len(measured.evens)
    gain = interval(promised) if promised else None
    rivals = rivals_of(measured.races, measured.rivals)
    stored = measured.stored.get(DENSE, 0), measured.swapped_bytes
    return Plan(found.layers, calls, gain, raced, rivals, *stored, processes, measured.is_pruned)
