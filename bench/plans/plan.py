"""What processes measured of a model's layers in, the plan out: for each layer what it is to be, and what the whole gains.

Of several plans the one that looks fastest looks faster than it is. So some processes choose, and what is told of the choice
(a layer's speed-up, its verdict, what the whole is predicted to gain) the rest say, which had no part in it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.findings.break_even import crossing
from bench.models.layers import Linear
from bench.models.selected import NONE
from bench.plans.arms import CALLED, DENSE, PLAIN, Choices, Kind, Swap, arm_of, swaps_of
from bench.plans.candidates import Measured, Processes, best_plan, speedups, tried
from bench.plans.timing import Passes
from bench.plans.whole import Raced, RivalRaced, interval, planned_of, rivals_of
from bench.statistics.intervals import Interval, median_interval
from bench.statistics.verdicts import is_clear, verdicts

AGREES = 0.1  # by which predicted and measured gain may differ
LEAST_TELLING = 5


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
    """The plans of all layers, none where nothing tells of them yet, and whether more processes would change nothing."""

    layers: Sequence[LayerPlan]
    choices: Choices
    is_decided: bool
    file: str = NONE

    @property
    def swaps(self) -> list[Swap]:
        """The calls that make the plan."""
        return swaps_of([one.layer.name for one in self.layers], self.choices, self.file)


class Tried(NamedTuple):
    """A plan that was measured whole by the processes that choose, and how many times as fast the model was by it."""

    choices: Choices
    gain: float
    is_taken: bool


class Plan(NamedTuple):
    """What is advised: for each layer, and of the whole where any is to be exchanged."""

    layers: Sequence[LayerPlan]
    calls: Sequence[Swap]  # none where the whole is not faster
    tried: Sequence[Tried]
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
    """Return what the fastest plan makes of each layer, as the processes tell that had no part in choosing it."""
    best = best_plan(measured)
    arm, kinds = arm_of(best), [kind for kind in measured.kinds if _telling(measured, str(kind))]
    if not measured.choosing or not any(arm in one for one in measured.telling):
        return Chosen([], best, is_decided=False)
    told = {
        f"{number} {name}": speedups(_telling(measured, name), name, number)
        for number in range(len(measured.layers))
        for name in dict.fromkeys([arm, *map(str, kinds)])
    }
    verdict = verdicts(told)

    def option(number: int, kind: Kind, arm: str) -> Option:
        key = f"{number} {arm}"
        return _option(measured, number, kind, arm, told[key], verdict[key])

    plans: list[LayerPlan] = []
    for number, (layer, kind) in enumerate(zip(measured.layers, best, strict=True)):
        options = [option(number, one, str(one)) for one in kinds]
        options.sort(key=lambda one: one.chosen_by, reverse=True)
        choice = None if kind is None else option(number, kind, arm)
        seconds = statistics.median(one[DENSE].layers[number] for one in (*measured.choosing, *measured.telling))
        leading = choice or (options[0] if options else None)
        arms = _arms_of(measured.evens, leading.kind.layer) if leading else {}
        plans.append(
            LayerPlan(layer, seconds, [], options, leading, choice, _break_even(measured.evens, arms, number), list(arms))
        )
    enough = len(measured.telling) >= LEAST_TELLING
    plans = [one._replace(rivals=rivals) for one, rivals in zip(plans, _rivals(measured, plans, arm), strict=True)]
    return Chosen(plans, best, enough and all(one.leading is None or one.leading.is_clear for one in plans), measured.file)


def _telling(measured: Measured, arm: str) -> Processes:
    """Return the processes that tell of an arm; of a kind that was given up before, which is no choice, those that chose."""
    return [one for one in measured.telling if arm in one] or [one for one in measured.choosing if arm in one]


def _rivals(measured: Measured, plans: Sequence[LayerPlan], arm: str) -> list[list[LayerRival]]:
    """Return for each layer what dense in other ways gains over dense, and whether that is more than its choice does.

    `arm` is that of the plan.
    """
    told, against = dict[str, list[float]](), dict[str, list[float]]()
    for number, one in enumerate(plans):
        for name in measured.rivals:
            told[f"{number} {name}"] = speedups(measured.telling, name, number)
            if one.choice:
                against[f"{number} {name}"] = speedups([p for p in measured.telling if arm in p], name, number, arm)
    verdict, beats = verdicts(told), verdicts(against)
    return [
        [
            LayerRival(name, interval(told[key]), verdict[key], beats.get(key))
            for name in measured.rivals
            if told[key := f"{number} {name}"]
        ]
        for number in range(len(plans))
    ]


def _option(measured: Measured, number: int, kind: Kind, arm: str, told: Sequence[float], verdict: str) -> Option:
    """Return what is known of a layer that is of a kind in an arm."""
    timed = [one[arm].layers[number] for one in (*measured.choosing, *measured.telling) if arm in one]
    chosen_by = statistics.median(speedups(measured.choosing, arm, number))
    is_told = len(told) > 1 and is_clear(told)
    return Option(kind, statistics.median(timed), interval(told), verdict, measured.kept[str(kind)][number], chosen_by, is_told)


def _arms_of(evens: Sequence[Mapping[str, Passes]], layer: str) -> dict[float, str]:
    """Return the arms of a kind of layer by their sparsities, rising."""
    arms = {name: name.split() for name in (evens[0] if evens else ())}
    return dict(sorted((float(words[1]), name) for name, words in arms.items() if words[0] == layer and len(words) > 1))


def _break_even(evens: Sequence[Mapping[str, Passes]], arms: Mapping[float, str], number: int) -> Interval | None:
    """Return from which sparsity on a layer is as fast as dense, each process having a curve of its own."""
    if len(arms) <= 1:
        return None
    return median_interval([crossing(list(arms), [speedups([one], arm, number)[0] for arm in arms.values()]) for one in evens])


def predicted(one: Mapping[str, Passes], choices: Choices) -> float:
    """Return the speed-up of the whole model that one process promises of a plan.

    From a pass through dense go the seconds that layers save in the planned model, those too that stay dense, both as the same
    stopwatches tell; a fast path that no layer is called on is lost. What all else takes longer or less is not looked up in
    the planned model, but taken by the share of the layers that are of a kind from the model in which all are of it.
    """
    dense, planned = one[DENSE], one[arm_of(choices)]
    saved = sum(dense.layers) - sum(planned.layers)
    for kind in {kind for kind in choices if kind}:
        saved += sum(other == kind for other in choices) / len(choices) * (dense.rest - one[str(kind)].rest)
    called = one.get(CALLED, one[PLAIN]).whole
    return one[PLAIN].whole / called * dense.whole / max(dense.whole - saved, dense.whole * 1e-3)


def plan_of(measured: Measured) -> Plan:
    """Return what is advised by what was measured: layers to exchange, unless the whole is then not shown to be faster."""
    found = chosen(measured)
    is_one, arm = any(found.choices) and len(found.layers) > 0, arm_of(found.choices)
    promised = [predicted(one, found.choices) for one in measured.telling if arm in one] if is_one else []
    raced = planned_of(measured.races) if is_one else None
    verdict = raced.verdict if raced else verdicts({"whole": promised})["whole"]
    calls = found.swaps if is_one and verdict == "faster" else []
    processes = sum(map(len, (measured.choosing, measured.telling, measured.races, measured.evens)))
    gain = interval(promised) if promised else None
    rivals = rivals_of(measured.races, measured.rivals)
    stored = measured.stored.get(DENSE, 0), measured.swapped_bytes
    every = [Tried(one, gain, is_taken=one == found.choices) for one, gain in tried(measured)]
    return Plan(found.layers, calls, every, gain, raced, rivals, *stored, processes, measured.is_pruned)
