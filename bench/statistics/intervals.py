"""A sample in, its median and a distribution-free interval out."""

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

CONFIDENCE = 0.95
SIGN_VALUES = 6  # the sign test bounds a median at 97 % with six values, and at 95 % with none fewer


class Interval(NamedTuple):
    """A median and what bounds it with the stated confidence."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """How far, as a fraction, the farther bound is from the median: 0.1 for 2.0 [1.9 2.2]."""
        return max(self.high / self.median, self.median / self.low) - 1

    @property
    def inverse(self) -> "Interval":
        """The interval of 1 over what this is of."""
        return Interval(1 / self.median, 1 / self.high, 1 / self.low)

    def __str__(self) -> str:
        """Return the median with its bounds, as 1.45 [1.40 1.52]."""
        return "{} [{} {}]".format(*(f"{value:.2f}" if value < 10 else f"{value:.1f}" for value in self))


def median_interval(sample: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the sample median and its distribution-free interval by the sign test (Conover 1999, section 3.2).

    The bounds are the k-th smallest and largest values, k as large as the binomial distribution allows; with too few
    values for the confidence asked (fewer than 6 for 95 %) they are the smallest and the largest.
    """
    ordered = sorted(sample)
    k = _bound(len(ordered), confidence)
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[len(ordered) - k])


@cache
def _bound(n: int, confidence: float) -> int:
    k, outside = 0, 0
    while k + 1 <= n // 2 and 2 * (outside + math.comb(n, k)) <= (1 - confidence) * 2**n:
        outside += math.comb(n, k)
        k += 1
    return max(k, 1)
