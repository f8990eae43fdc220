"""What several processes say of each case in, interval and verdict out: processes are the unit.

What a process says of a case is the median of its pairs. Two processes on the same code differ by where their memory lies and
by what the machine does meanwhile; pairs within one cannot see that (Kalibera and Jones 2013, "Rigorous benchmarking in
reasonable time"). So every interval and every verdict here is over processes.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import special

from bench.statistics.intervals import CONFIDENCE, SIGN_VALUES, Interval, median_interval
from bench.statistics.sequential import FEWEST, sequential_interval

WRONG_VERDICTS = 0.01  # of the verdicts "faster" and "slower" in a run, the fraction expected to be wrong, at most
MARGIN = 0.05  # a ratio whose whole interval is within this of 1 is "same"
TRIMMED = 5  # one value in so many is cut off at each end before a mean is taken


class Evidence(NamedTuple):
    """What a verdict on one ratio is made from."""

    interval: Interval
    p: float  # of a trimmed t test that the ratio is 1
    strict: Interval  # whatever the distribution, at the fraction of wrong verdicts
    suffices: bool  # there are processes enough to decide
    is_bounded: bool = True  # the interval asks nothing of the distribution, so that the ratio may be called the same by it

    @property
    def passes_alone(self) -> bool:
        """Whether a distribution-free test tells the ratio from 1 at the fraction of wrong verdicts."""
        return not self.strict.low <= 1 <= self.strict.high

    @property
    def slowdown(self) -> float:
        """How much longer what has this ratio takes, as a fraction: 0.25 where it is 0.8."""
        return 1 / self.interval.median - 1


class Trimmed(NamedTuple):
    """A trimmed mean, the variance of the sample with the cut values moved in, and how many values are left of how many."""

    mean: float
    variance: float
    kept: int
    of: int


def process_interval(speedups: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median speed-up over processes, one positive value each, with its interval; at least two values.

    From SIGN_VALUES on it is the sign test's, whatever the distribution. Below, where no distribution-free interval exists,
    it is Student's on the logarithms, widened to hold every value seen: that one takes the processes for normal, and two
    modes of which only one was met are beyond it.
    """
    if len(speedups) >= SIGN_VALUES:
        return median_interval(speedups, confidence)
    low, high = _students([math.log(value) for value in speedups], confidence)
    return Interval(statistics.median(speedups), math.exp(max(low, -700)), math.exp(min(high, 700)))


def difference_interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median difference with its interval, bounded as `process_interval` does; at least two values."""
    if len(differences) >= SIGN_VALUES:
        return median_interval(differences, confidence)
    return Interval(statistics.median(differences), *_students(differences, confidence))


def _students(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the bounds of Student's interval of the mean, widened to hold every value."""
    half = float(special.stdtrit(len(values) - 1, 0.5 + confidence / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    centre = statistics.mean(values)
    return min(centre - half, *values), max(centre + half, *values)


def values_needed(differences: Sequence[float], bound: float, most: int = 100) -> int | None:
    """Return about how many values would tell the median difference from `bound`; None where more than `most`.

    That is the first number of values, spread as evenly as a normal distribution of the mean and deviation that at least two
    differences have, whose interval does not hold the bound.
    """
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    for number in range(len(differences) + 1, most + 1):
        scores = (statistics.NormalDist().inv_cdf((place + 0.5) / number) for place in range(number))
        one = difference_interval([mean + deviation * score for score in scores])
        if not one.low <= bound <= one.high:
            return number
    return None


def trimmed(values: Sequence[float]) -> Trimmed:
    """Return the mean of at least two values less some at each end: one odd process in a dozen decides nothing.

    A fifth, rounded down, is cut off at each end. For the variance the cut values are moved in to the nearest kept ones.
    """
    ordered = sorted(values)
    cut = len(ordered) // TRIMMED
    kept = ordered[cut : len(ordered) - cut]
    spread = statistics.variance([kept[0]] * cut + kept + [kept[-1]] * cut)
    return Trimmed(statistics.mean(kept), spread, len(kept), len(ordered))


def p_value(speedups: Sequence[float]) -> float:
    """Return the two-sided p-value of a trimmed t test on the logarithms that the speed-up is 1; at least two values.

    For one sample it is Tukey and McLaughlin's (1963); Yuen's (1974) is that for two.
    """
    mean, variance, kept, of = trimmed([math.log(value) for value in speedups])
    if variance == 0:
        return float(mean == 0)
    return float(2 * special.stdtr(kept - 1, -abs(mean) * kept / math.sqrt(variance * of)))


def evidence_of(speedups: Sequence[float], wrong: float = WRONG_VERDICTS) -> Evidence:
    """Return what the speed-ups of one case over processes say of whether it differs from 1; at least two values."""
    return Evidence(
        process_interval(speedups),
        p_value(speedups),
        sequential_interval(speedups, wrong),
        suffices=len(speedups) >= FEWEST,
        is_bounded=len(speedups) >= SIGN_VALUES,
    )


def judged(known: Mapping[str, Evidence], wrong: float = WRONG_VERDICTS, margin: float = MARGIN) -> dict[str, str]:
    """Return faster, slower, same or undecided for each named ratio.

    Same says that the interval lies within 1 / (1 + margin) to 1 + margin, and comes first: a difference so small is no news,
    however sure. Faster and slower must pass two tests. The trimmed t tests of all ratios together: of the differences they
    find, a fraction `wrong` is expected to be none (Benjamini and Hochberg 1995; with no true difference at all, that is the
    chance of finding even one). And a test at `wrong` for each that does not take the processes for normal: a case of two
    modes, whose t test is falsely certain when most processes meet the same one, does not pass it by that. It is also what
    bounds the looks at a case while it is measured, after each process, by `wrong` in all (bench.statistics.sequential).
    """
    told = dict.fromkeys(known, "undecided")
    ordered = sorted((one.p, name) for name, one in known.items() if one.suffices)
    found = max((rank for rank, (p, _) in enumerate(ordered, 1) if p <= wrong * rank / len(ordered)), default=0)
    for rank, (_, name) in enumerate(ordered, 1):
        interval = known[name].interval
        if within(interval, margin) and known[name].is_bounded:
            told[name] = "same"
        elif rank <= found and known[name].passes_alone:
            told[name] = "faster" if interval.median > 1 else "slower"
    return told


def verdicts(samples: Mapping[str, Sequence[float]], wrong: float = WRONG_VERDICTS, margin: float = MARGIN) -> dict[str, str]:
    """Return the verdict of each named sample of speed-ups over processes; see `judged`."""
    known = {name: evidence_of(values, wrong) for name, values in samples.items() if len(values) >= FEWEST}
    return dict.fromkeys(samples, "undecided") | judged(known, wrong, margin)


def within(interval: Interval, margin: float = MARGIN) -> bool:
    """Tell whether the interval lies within the margin of 1."""
    return 1 / (1 + margin) <= interval.low and interval.high <= 1 + margin


def is_same(speedups: Sequence[float], margin: float = MARGIN) -> bool:
    """Tell whether the interval of a sample lies within the margin of 1."""
    return within(process_interval(speedups), margin)


def is_clear(speedups: Sequence[float]) -> bool:
    """Tell whether the processes so far suffice for a verdict, were one case in ten of the run to differ from 1."""
    one = evidence_of(speedups)
    if within(one.interval):
        return one.is_bounded
    return one.passes_alone and one.p <= WRONG_VERDICTS / 10
