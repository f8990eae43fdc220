"""Two samples over processes in, old and new, the change between them with interval and evidence out.

Where old and new processes took turns on one machine (`continuous`), each pair of neighbours gives a change of its own, and
the slow drift of the machine is in none of them. Saved runs have no such pairs: their processes are two independent samples.
"""

import math
import statistics
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate

from scipy import special

from bench.statistics.intervals import CONFIDENCE, Interval, median_interval
from bench.statistics.verdicts import WRONG_VERDICTS, Evidence, p_value, process_interval, trimmed

# Processes of each sample. A change is looked at once, when both are complete: at WRONG_VERDICTS the Mann-Whitney test tells
# five from five, and the sign test takes eight pairs.
MIN_PROCESSES, MIN_PAIRS = 5, 8
ONE = Interval(1.0, 1.0, 1.0)
NOTHING = Evidence(ONE, 1.0, ONE, suffices=True)  # a sample against itself


def change(old: Mapping[int, float], new: Mapping[int, float], *, paired: bool) -> Evidence | None:
    """Return what is known of new over old; None where there are not two processes of each.

    The same figures in both are the same measurement, of which nothing can have changed.
    """
    if old and old == new:
        return NOTHING
    if paired:
        ratios = [new[number] / old[number] for number in sorted(set(old) & set(new))]
        return _of_pairs(ratios) if len(ratios) > 1 else None
    if min(len(old), len(new)) < 2:
        return None
    before, after = (sorted(math.log(value) for value in sample.values()) for sample in (old, new))
    return Evidence(
        shift(before, after, CONFIDENCE),
        _p_value(before, after),
        shift(before, after, 1 - WRONG_VERDICTS),
        suffices=min(len(old), len(new)) >= MIN_PROCESSES,
    )


def _of_pairs(ratios: list[float]) -> Evidence:
    strict = median_interval(ratios, 1 - WRONG_VERDICTS)
    return Evidence(process_interval(ratios), p_value(ratios), strict, suffices=len(ratios) >= MIN_PAIRS)


def shift(old: list[float], new: list[float], confidence: float) -> Interval:
    """Return by what factor the new logarithms lie above the old: Hodges and Lehmann's estimate with Moses's interval.

    The bounds are the k-th smallest and largest of all differences, k as large as the Mann-Whitney distribution allows
    (Hollander and Wolfe 1999, section 4.3), whatever the two samples' distribution. Where they are too few for the confidence
    (fewer than 4 each for 95 %) Welch's interval on the logarithms is put around all differences seen.
    """
    differences = sorted(after - before for before in old for after in new)
    k = _bound(len(old), len(new), confidence)
    low, high = differences[max(k, 1) - 1], differences[-max(k, 1)]
    if k == 0:
        centre, half = _welch(old, new, confidence)
        low, high = min(low, centre - half), max(high, centre + half)
    return Interval(*(math.exp(min(max(bound, -700.0), 700.0)) for bound in (statistics.median(differences), low, high)))


@lru_cache(maxsize=256)
def _bound(olds: int, news: int, confidence: float) -> int:
    """Return how many of the smallest differences lie outside of the interval, and the next bounds it; 0 where none does."""
    least = (1 - confidence) / 2
    if olds * news > 2500:  # the exact distribution takes long, and is normal
        spread = math.sqrt(olds * news * (olds + news + 1) / 12)
        return max(0, math.floor(olds * news / 2 + float(special.ndtri(least)) * spread))
    counts = _mann_whitney(olds, news)
    whole = math.comb(olds + news, olds)
    return sum(total <= least * whole for total in accumulate(counts))


@lru_cache(maxsize=256)
def _mann_whitney(olds: int, news: int) -> list[int]:
    """Return in how many orders of two samples a number of pairs is reversed, for each number from 0 on.

    Its generating function is the Gaussian binomial coefficient: the product of (1 - x^(news + i)) / (1 - x^i) over i.
    """
    counts = [1] + [0] * (olds * news)
    for i in range(1, olds + 1):
        for power in range(olds * news, news + i - 1, -1):
            counts[power] -= counts[power - news - i]
        for power in range(i, olds * news + 1):
            counts[power] += counts[power - i]
    return counts


def _welch(old: list[float], new: list[float], confidence: float) -> tuple[float, float]:
    """Return the difference of the means and the half-width of its interval, with Welch's degrees of freedom."""
    parts = [statistics.variance(sample) / len(sample) for sample in (old, new)]
    centre, variance = statistics.mean(new) - statistics.mean(old), sum(parts)
    if variance == 0:
        return centre, 0.0
    freedom = variance**2 / sum(part**2 / (len(s) - 1) for part, s in zip(parts, (old, new), strict=True))
    return centre, float(special.stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)


def _p_value(old: list[float], new: list[float]) -> float:
    """Return the two-sided p-value of Yuen's trimmed t test for two samples of unequal variances, as scipy's ttest_ind has it.

    scipy.stats takes a third of a second to import, which every start of the suite would pay.
    """
    one, other = trimmed(old), trimmed(new)
    parts = [each.variance * (each.of - 1) / (each.kept * (each.kept - 1)) for each in (one, other)]
    variance = sum(parts)
    if variance == 0:
        return float(one.mean == other.mean)
    freedom = variance**2 / sum(part**2 / (each.kept - 1) for part, each in zip(parts, (one, other), strict=True))
    return float(2 * special.stdtr(freedom, -abs(one.mean - other.mean) / math.sqrt(variance)))
