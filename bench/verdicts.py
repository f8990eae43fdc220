"""What several processes say of each case in, interval and verdict out: processes are the unit.

What a process says of a case is the median of its pairs. Two processes on the same code differ by where their memory lies and
by what the machine does meanwhile; pairs within one cannot see that (Kalibera and Jones 2013, "Rigorous benchmarking in
reasonable time"). So every interval and every verdict here is over processes.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from scipy import special

from bench.intervals import CONFIDENCE, SIGN_VALUES, Interval, median_interval

WRONG_VERDICTS = 0.01  # of the verdicts "faster" and "slower" in a run, the fraction expected to be wrong, at most
MIN_PROCESSES = 8  # the sign test tells a median from 1 at the 1 % above with eight values, and with none fewer
MARGIN = 0.05  # a ratio whose whole interval is within this of 1 is "same"


def process_interval(speedups: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median speed-up over processes, one positive value each, with its interval; at least two values.

    From SIGN_VALUES on it is the sign test's, whatever the distribution. Below, where no distribution-free interval exists,
    it is Student's on the logarithms, widened to hold every value seen: that one takes the processes for normal, and two
    modes of which only one was met are beyond it.
    """
    if len(speedups) >= SIGN_VALUES:
        return median_interval(speedups, confidence)
    logs = [math.log(value) for value in speedups]
    half = float(special.stdtrit(len(logs) - 1, 0.5 + confidence / 2)) * statistics.stdev(logs) / math.sqrt(len(logs))
    centre = statistics.mean(logs)
    low, high = min(centre - half, *logs), max(centre + half, *logs)
    return Interval(statistics.median(speedups), math.exp(max(low, -700)), math.exp(min(high, 700)))


def p_value(speedups: Sequence[float]) -> float:
    """Return the two-sided p-value of Yuen's trimmed t test on the logarithms that the speed-up is 1; at least two values.

    A fifth of the values, rounded down, is cut off at each end before the mean is taken, and the variance is that of the sample
    with the cut values moved in to the nearest kept ones (Yuen 1974): one odd process in a dozen decides nothing.
    """
    logs = sorted(math.log(value) for value in speedups)
    cut = len(logs) // 5
    kept = logs[cut : len(logs) - cut]
    centre = statistics.mean(kept)
    spread = statistics.stdev([kept[0]] * cut + kept + [kept[-1]] * cut)
    if spread == 0:
        return float(centre == 0)
    t = centre / spread * len(kept) / math.sqrt(len(logs))
    return float(2 * special.stdtr(len(kept) - 1, -abs(t)))


def verdicts(samples: Mapping[str, Sequence[float]], wrong: float = WRONG_VERDICTS, margin: float = MARGIN) -> dict[str, str]:
    """Return faster, slower, same or undecided for each named sample of speed-ups over processes.

    Same says that the interval lies within 1 / (1 + margin) to 1 + margin, and comes first: a difference so small is no news,
    however sure. Faster and slower must pass two tests. The trimmed t tests of all samples together: of the differences they
    find, a fraction `wrong` is expected to be none (Benjamini and Hochberg 1995; with no true difference at all, that is the
    chance of finding even one). And the sign test at `wrong` for each, which asks nothing of the distribution: a case of two
    modes, whose t test is falsely certain when most processes meet the same one, does not pass it by that. With fewer than
    MIN_PROCESSES nothing is decided.
    """
    told = dict.fromkeys(samples, "undecided")
    ordered = sorted((p_value(values), name) for name, values in samples.items() if len(values) >= MIN_PROCESSES)
    found = max((rank for rank, (p, _) in enumerate(ordered, 1) if p <= wrong * rank / len(ordered)), default=0)
    for rank, (_, name) in enumerate(ordered, 1):
        values = samples[name]
        if is_same(values, margin):
            told[name] = "same"
        elif rank <= found and passes_sign_test(values, wrong):
            told[name] = "faster" if statistics.median(values) > 1 else "slower"
    return told


def is_same(speedups: Sequence[float], margin: float = MARGIN) -> bool:
    """Tell whether the interval lies within the margin of 1."""
    interval = process_interval(speedups)
    return 1 / (1 + margin) <= interval.low and interval.high <= 1 + margin


def passes_sign_test(speedups: Sequence[float], wrong: float = WRONG_VERDICTS) -> bool:
    """Tell whether the sign test tells the median from 1 at `wrong`."""
    strict = median_interval(speedups, 1 - wrong)
    return not strict.low <= 1 <= strict.high


def is_clear(speedups: Sequence[float]) -> bool:
    """Tell whether the processes so far suffice for a verdict, but for what the other cases of the run ask."""
    return is_same(speedups) or (passes_sign_test(speedups) and p_value(speedups) <= WRONG_VERDICTS)
