"""Samples in, interval and verdict out: processes are the unit, because they differ by more than the pairs in one.

What a process says of a case is the median of its pairs. Two processes on the same code differ by where their memory lies and
by what the machine does meanwhile; pairs within one cannot see that (Kalibera and Jones 2013, "Rigorous benchmarking in
reasonable time"). So every interval and every verdict here is over processes.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import special

CONFIDENCE = 0.95
SIGN_PROCESSES = 6  # the sign test bounds a median at 97 % with six values, and at 95 % with none fewer
WRONG_VERDICTS = 0.01  # the chance of even one wrong "faster" or "slower" in a run, at most
MIN_PROCESSES = 8  # the sign test tells a median from 1 at the 1 % above with eight values, and with none fewer
MARGIN = 0.05  # a ratio whose whole interval is within this of 1 is "same"


class Interval(NamedTuple):
    """A median and what bounds it with the stated confidence."""

    median: float
    low: float
    high: float


def median_interval(sample: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the sample median and its distribution-free interval by the sign test (Conover 1999, section 3.2).

    The bounds are the k-th smallest and largest values, k as large as the binomial distribution allows; with too few
    values for the confidence asked (fewer than 6 for 95 %) they are the smallest and the largest.
    """
    ordered = sorted(sample)
    n, k = len(ordered), 0
    while k + 1 <= n // 2 and 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n <= 1 - confidence:
        k += 1
    k = max(k, 1)
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[n - k])


def process_interval(speedups: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median speed-up over processes, one positive value each, with its interval; at least two values.

    From SIGN_PROCESSES on it is the sign test's, whatever the distribution. Below, where no distribution-free interval exists,
    it is Student's on the logarithms, widened to hold every value seen: that one takes the processes for normal, and two
    modes of which only one was met are beyond it.
    """
    if len(speedups) >= SIGN_PROCESSES:
        return median_interval(speedups, confidence)
    logs = [math.log(value) for value in speedups]
    half = float(special.stdtrit(len(logs) - 1, 0.5 + confidence / 2)) * statistics.stdev(logs) / math.sqrt(len(logs))
    centre = statistics.mean(logs)
    low, high = min(centre - half, *logs), max(centre + half, *logs)
    return Interval(statistics.median(speedups), math.exp(max(low, -700)), math.exp(min(high, 700)))


def p_value(speedups: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's t test on the logarithms that the speed-up is 1; at least two values."""
    logs = [math.log(value) for value in speedups]
    centre, spread = statistics.mean(logs), statistics.stdev(logs)
    if spread == 0:
        return float(centre == 0)
    return float(2 * special.stdtr(len(logs) - 1, -abs(centre) / spread * math.sqrt(len(logs))))


def verdicts(samples: Mapping[str, Sequence[float]], wrong: float = WRONG_VERDICTS, margin: float = MARGIN) -> dict[str, str]:
    """Return faster, slower, same or undecided for each named sample of speed-ups over processes.

    Faster and slower hold for all samples together: the chance of even one wrong among them is at most `wrong` (Holm 1979
    over the t tests), and each must also pass the sign test at `wrong`, which asks nothing of the distribution: a case of two
    modes, whose t test is falsely certain when most processes meet the same one, does not pass it by that. Same says that the
    interval lies within 1 / (1 + margin) to 1 + margin. With fewer than MIN_PROCESSES nothing is decided.
    """
    told = dict.fromkeys(samples, "undecided")
    ordered = sorted((p_value(values), name) for name, values in samples.items() if len(values) >= MIN_PROCESSES)
    rejecting = True
    for rank, (p, name) in enumerate(ordered):
        rejecting = rejecting and p <= wrong / (len(ordered) - rank)
        values = samples[name]
        interval, strict = process_interval(values), median_interval(values, 1 - wrong)
        if rejecting and not strict.low <= 1 <= strict.high:
            told[name] = "faster" if strict.low > 1 else "slower"
        elif 1 / (1 + margin) <= interval.low and interval.high <= 1 + margin:
            told[name] = "same"
    return told
