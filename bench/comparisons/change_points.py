"""The runs of one case in, the steps of its level out: the runs from which on its speed-up over dense is another.

What is looked at are logarithms of speed-ups. Where a level ends is proposed by least squares with a penalty for each step
(Killick, Fearnhead and Eckley 2012, by `ruptures`), so large that the noise from run to run alone rarely pays for one. That
noise is told by neighbouring runs, as a step is between two of them only. A proposed step is kept where it is beyond the margin
of what is news, and beyond what dense may have gained by another layout, and where either enough runs on both sides or, next to
the newest run, their processes tell the levels apart.
"""

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from bench.comparisons.cases import reference_slack
from bench.runs.saved import Measured, Run
from bench.statistics.changes import change, shift
from bench.statistics.intervals import CONFIDENCE, SIGN_VALUES, Interval, median_interval
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS

RUNS_NEEDED = 6  # with fewer, their noise is unknown: the step is one of four differences between neighbours
ENOUGH_RUNS = 4  # on both sides of a step, for these to be told apart without a look at their processes
NEAREST = 30  # runs on each side say what the level is: more say little more, and a machine drifts
NEAREST_BY_PROCESSES = 3
QUARTILE = 1.1503 * math.sqrt(2)  # three in four differences of normal values are within so many of their deviations
SPIKE = 3.0  # deviations


class Point(NamedTuple):
    """A case in one run."""

    run: Run
    measured: Measured
    speedup: Interval


class Step(NamedTuple):
    """A change of level: `at` is the first point of the new one."""

    at: int
    before: Interval
    after: Interval
    change: Interval  # the level after over that before

    @property
    def verdict(self) -> str:
        """Whether the case became slower or faster."""
        return "faster" if self.after.median > self.before.median else "slower"


def steps(points: Sequence[Point]) -> list[Step]:
    """Return the steps of a series, oldest first; none where it has too few runs to know its noise."""
    if len(points) < RUNS_NEEDED:
        return []

    @cache
    def between(start: int, at: int, end: int) -> tuple[Step, bool]:
        return _judged(points[max(start, at - NEAREST) : at], points[at : min(end, at + NEAREST)], at)

    ends = _proposed(points)
    while True:  # a step that is none leaves its neighbours longer levels to be told apart by
        judged = [between(*three) for three in zip([0, *ends], ends, [*ends[1:], len(points)], strict=False)]
        unreal = [step for step, is_real in judged if not is_real]
        if not unreal:
            return [step for step, _ in judged]
        ends.remove(min(unreal, key=lambda step: abs(math.log(step.after.median / step.before.median))).at)


def stands(step: Step, of_series: Sequence[Step]) -> bool:
    """Tell whether what a step did to the level is still there at the newest run, the margin apart."""
    ratio = of_series[-1].after.median / step.before.median
    return ratio > 1 + MARGIN if step.verdict == "faster" else ratio < 1 / (1 + MARGIN)


def noise(points: Sequence[Point]) -> float:
    """Return the standard deviation of the logarithms from run to run, at least what the runs' own intervals tell.

    One difference in four between neighbours may be a step, or one half of a run that is off.
    """
    differences = np.abs(np.diff([math.log(point.speedup.median) for point in points]))
    widths = [math.log(point.speedup.high / point.speedup.low) for point in points]
    within_runs = statistics.median(widths) / (2 * statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2))
    return max(float(np.quantile(differences, 0.75)) / QUARTILE, within_runs, math.log1p(MARGIN) / 10)


def _proposed(points: Sequence[Point]) -> list[int]:
    """Return where new levels begin by penalised least squares."""
    from ruptures import KernelCPD  # noqa: PLC0415  # it takes a second to import, and no other tool needs it

    deviation = noise(points)
    values = np.array([math.log(point.speedup.median) for point in points])
    middles = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    plain = np.concatenate([middles[:1], middles, values[-1:]])
    # A single run that is off is no level and must not move the ends of those that are. Of the newest nobody knows yet.
    values = np.where(np.abs(values - plain) > SPIKE * deviation, plain, values)
    # By simulation: normal noise alone passes in 3 of 1,000 series, of 6 runs or of 1,000. With few runs, their deviation is
    # itself uncertain.
    threshold = deviation * (4 + 20 / len(points))
    search = KernelCPD(kernel="linear", min_size=1).fit((values - values.mean())[:, None])
    return [int(end) for end in search.predict(pen=threshold**2)[:-1]]


def _judged(before: Sequence[Point], after: Sequence[Point], at: int) -> tuple[Step, bool]:
    """Return the step between two levels, and whether it is one."""
    levels = _level(before), _level(after)
    if min(len(before), len(after)) >= ENOUGH_RUNS:
        old, new = ([math.log(point.speedup.median) for point in points] for points in (before, after))
        told, strict = shift(old, new, CONFIDENCE), shift(old, new, 1 - WRONG_VERDICTS)
        apart = not strict.low <= 1 <= strict.high
    else:
        evidence = change(_pooled(before[-NEAREST_BY_PROCESSES:]), _pooled(after[:NEAREST_BY_PROCESSES]), paired=False)
        told = evidence.interval if evidence else Interval(levels[1].median / levels[0].median, 0.0, math.inf)
        apart = evidence is not None and evidence.passes_alone and evidence.suffices
    step = Step(at, *levels, told)
    moved = math.log(levels[1].median / levels[0].median)
    least = math.log1p(MARGIN) + reference_slack(before[-1].measured, after[0].measured)
    return step, apart and abs(moved) > least and moved * math.log(told.median) > 0


def _level(points: Sequence[Point]) -> Interval:
    """Return the level of some runs; of too few for an interval of their own, what holds all of theirs."""
    medians = [point.speedup.median for point in points]
    if len(points) >= SIGN_VALUES:
        return median_interval(medians)
    low, high = min(point.speedup.low for point in points), max(point.speedup.high for point in points)
    return Interval(statistics.median(medians), low, high)


def _pooled(points: Sequence[Point]) -> dict[int, float]:
    """Return what all processes of some runs say."""
    return dict(enumerate(value for point in points for value in point.measured.speedups.values()))
