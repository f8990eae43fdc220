"""Evidence on all cases of two saved runs in, the same out, less sure by as much as the two runs differ as a whole.

Beside other cases, or in another hour, a machine does not run sparse and dense products in the same proportion. All processes
of a run share that, so that they cannot tell it. How large it is, the cases of the other layers tell: where the runs do not
differ as a whole, most of these differ as chance has it (Efron 2004, "Large-scale simultaneous hypothesis testing", takes the
null distribution from the cases in this way). What changed one layer does not widen the intervals on that layer.
"""

import math
import statistics
from collections.abc import Mapping

from scipy import special

from bench.statistics.intervals import Interval
from bench.statistics.verdicts import Evidence

LEAST_CASES = 10  # to tell how far apart two runs are as a whole
MEDIAN_SCORE = 0.6745  # of the absolute value of a standard normal variable


def widened(known: Mapping[str, Evidence], layers: Mapping[str, str]) -> dict[str, Evidence]:
    """Return the evidence on each named case, whose layer is in `layers`, as the spread of the others has it.

    Where there are too few cases of other layers all cases tell the spread, and where these are too few nothing is widened.
    """
    scores = {name: _score(one) for name, one in known.items() if one.suffices}
    spreads = {}
    for layer in set(layers.values()):
        others = [score for name, score in scores.items() if layers[name] != layer]
        spreads[layer] = _spread(others if len(others) >= LEAST_CASES else list(scores.values()))
    return {name: _stretched(one, spreads[layers[name]]) for name, one in known.items()}


def _score(one: Evidence) -> float:
    """Return the standard normal value that is as improbable, whatever its sign."""
    return float(-special.ndtri(max(one.p, 1e-300) / 2))


def _spread(scores: list[float]) -> float:
    """Return the standard deviation of the scores, not moved by a few large ones, and at least 1."""
    return max(1.0, statistics.median(scores) / MEDIAN_SCORE) if len(scores) >= LEAST_CASES else 1.0


def _stretched(one: Evidence, factor: float) -> Evidence:
    return Evidence(
        _wider(one.interval, factor),
        float(2 * special.ndtr(-_score(one) / factor)),
        _wider(one.strict, factor),
        one.suffices,
    )


def _wider(interval: Interval, factor: float) -> Interval:
    middle = math.log(interval.median)
    low, high = (math.exp(max(-700.0, min(700.0, middle + factor * (math.log(bound) - middle)))) for bound in interval[1:])
    return Interval(interval.median, low, high)
