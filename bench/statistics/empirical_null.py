"""Evidence on all cases of two saved runs in, the same out, less sure by as much as two runs of one code differ.

Beside other cases, or in another hour, a machine does not run sparse and dense products in the same proportion. All processes
of a run share that, so that they cannot tell it. How large it is, the cases of the other layers tell: where the runs do not
differ as a whole, most of these differ as chance has it (Efron 2004, "Large-scale simultaneous hypothesis testing", takes the
null distribution from the cases in this way). What changed one layer does not make that layer's cases less sure.

Few cases tell it badly, and one case of one layer not at all. So what the cases tell is moderated by what is known beforehand
(Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression"): the variance is the mean of
both, each by its degrees of freedom. What is judged by it has the larger number of these and not, as there, their sum: a
machine of its own kind is not of those that the prior is from, and the cases alone then know.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from scipy import special

from bench.statistics.changes import NOTHING
from bench.statistics.intervals import CONFIDENCE, Interval
from bench.statistics.verdicts import WRONG_VERDICTS, Evidence

# Of the logarithm of a change where nothing changed. Of the committed runs of one machine and, but for how they are measured,
# one code (znver3: 1, 2, 4, 5) each layer's cases tell 0 to 3 %: the most is taken. With four degrees of freedom one comparison
# in fifteen is expected to have more than 7 %, which was met too.
PRIOR, PRIOR_FREEDOM = 0.03, 4.0
MEDIAN_SCORE = 0.6745  # of the absolute value of a standard normal variable
# What a case adds to the degrees of freedom: a median of absolute values knows 0.37 as much as a variance of normal values
# (Rousseeuw and Croux 1993). By simulation half of that, for the cases have errors of their own: so taken, of comparisons of
# three dozen cases of one code that are 8 % apart one in two hundred has a case called different, and else eight.
EFFICIENCY = 0.2


class Apart(NamedTuple):
    """How far two runs of one code differ in a case: the logarithm's standard deviation, and its degrees of freedom."""

    deviation: float
    freedom: float

    def reach(self, confidence: float) -> float:
        """Return how far, as a logarithm, the runs differ at most with this confidence."""
        return float(special.stdtrit(self.freedom, 0.5 + confidence / 2)) * self.deviation


def widened(known: Mapping[str, Evidence], layers: Mapping[str, str]) -> dict[str, Evidence]:
    """Return the evidence on each named case, whose layer is in `layers`, as what the cases of the others tell has it."""
    apart = _by_layer(known, layers)
    return {name: _less_sure(one, apart[layers[name]]) for name, one in known.items()}


def least_told(known: Mapping[str, Evidence], layers: Mapping[str, str]) -> float | None:
    """Return the slowdown, as a fraction, below which none is told of some layer, however sure its processes are.

    None where no case can be judged, or each is held against its own figures.
    """
    apart = _by_layer({name: one for name, one in known.items() if one.suffices and one != NOTHING}, layers)
    return max((math.expm1(one.reach(1 - WRONG_VERDICTS)) for one in apart.values()), default=None)


def _by_layer(known: Mapping[str, Evidence], layers: Mapping[str, str]) -> dict[str, Apart]:
    return {
        layer: between_runs(one for name, one in known.items() if layers[name] != layer)
        for layer in {layers[name] for name in known}
    }


def between_runs(others: Iterable[Evidence]) -> Apart:
    """Return how far two runs differ by what some cases tell that a change is not expected of, none of which need be there."""
    differences = [
        (abs(math.log(one.interval.median)), _error(one.interval)) for one in others if one.suffices and one != NOTHING
    ]
    freedom = EFFICIENCY * len(differences)
    variance = (PRIOR_FREEDOM * PRIOR**2 + freedom * _spread(differences) ** 2) / (PRIOR_FREEDOM + freedom)
    return Apart(math.sqrt(variance), max(PRIOR_FREEDOM, freedom))


def _error(interval: Interval) -> float:
    """Return the standard error, as a logarithm, that an interval over processes stands for."""
    return math.log(interval.high / interval.low) / 2 / statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def _spread(differences: Sequence[tuple[float, float]]) -> float:
    """Return the standard deviation that differences have beside their standard errors, not moved by a few large ones.

    With it the median of what they are in their deviations is that of chance: Paule and Mandel's estimate (1982), by medians.
    """
    low, high = 0.0, max((size for size, _ in differences), default=0.0) / MEDIAN_SCORE

    def is_larger(deviation: float) -> bool:
        expected = (math.hypot(error, deviation) * MEDIAN_SCORE for _, error in differences)
        return statistics.median(size - each for (size, _), each in zip(differences, expected, strict=True)) > 0

    if not differences or not is_larger(0.0):
        return 0.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if is_larger(middle) else (low, middle)
    return high


def _less_sure(one: Evidence, apart: Apart) -> Evidence:
    """Return the evidence with the deviation between runs in its intervals and in its p-value.

    The degrees of freedom of both deviations together are Satterthwaite's (1946), with none lacking within the runs: what these
    lack is in the p-value that was there, and the larger holds.
    """
    if one == NOTHING:
        return one
    within, between = _error(one.interval) ** 2, apart.deviation**2
    freedom = apart.freedom * ((within + between) / between) ** 2
    score = abs(math.log(one.interval.median)) / math.sqrt(within + between)
    return Evidence(
        _wider(one.interval, apart.reach(CONFIDENCE)),
        max(one.p, float(2 * special.stdtr(freedom, -score))),
        _wider(one.strict, apart.reach(1 - WRONG_VERDICTS)),
        one.suffices,
        one.is_bounded,
    )


def _wider(interval: Interval, reach: float) -> Interval:
    middle = math.log(interval.median)
    low, high = (math.hypot(math.log(bound) - middle, reach) for bound in interval[1:])
    return Interval(interval.median, math.exp(max(-700.0, middle - low)), math.exp(min(700.0, middle + high)))
