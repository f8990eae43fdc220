"""What the processes say of one ratio in, the ratios out that they cannot be told from, however often one looks.

A case is looked at after every process and measured no further once it is clear, so that each look is one more chance to be
wrong. The test is the quantile test (Conover 1999, section 3.2): of so many processes, all but a few say more than a factor.
What may be wrong, the looks share (Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials"), and the chance
of each is counted exactly, from the binomial distribution (Jennison and Turnbull 2000, chapter 12).
"""

import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from bench.statistics.intervals import Interval


class Level(NamedTuple):
    """A factor, and how often at most a process says more than it of a case whose median is not above 1."""

    factor: float
    chance: float
    share: float  # of what may be wrong
    first: int = 1  # look, in processes


# At a factor of 1 the chance is what a median is, and nothing is assumed. The farther from 1, the rarer is a process of a case
# that is not faster; docs/method.md has how rare in what was saved. With a first look at 8, one odd process in twelve could not
# be afforded.
LEVELS = (Level(1.0, 1 / 2, 0.85, first=9), Level(1.5, 1 / 4, 0.05), Level(2.0, 1 / 8, 0.05), Level(4.0, 1 / 16, 0.05))
FEWEST = 3  # processes with which any level decides


def tolerated(level: Level, processes: int, wrong: float) -> int | None:
    """Return how many of the processes may say less than the level's factor where it decides; None where it never does."""
    looks = max(16, 1 << processes.bit_length())
    most = _schedule(level, looks, wrong)[processes]
    return most if most >= 0 else None


@cache
def _schedule(level: Level, looks: int, wrong: float) -> list[int]:
    """Return for each number of processes how many exceptions are afforded, -1 for not even none, all looks before counted."""
    left = wrong * level.share / 2  # on either side
    undecided, afforded = [1.0], [-1]  # the chance of each number of exceptions so far
    for look in range(1, looks + 1):
        met = zip([*undecided, 0.0], [0.0, *undecided], strict=True)
        undecided = [level.chance * same + (1 - level.chance) * one_fewer for same, one_fewer in met]
        most = -1
        odd = look if level.factor == 1 else look // 5  # among more the two modes of a case might be
        while look >= level.first and most < odd and undecided[most + 1] <= left:
            most += 1
            left -= undecided[most]
            undecided[most] = 0.0
        afforded.append(most)
    return afforded


def sequential_interval(speedups: Sequence[float], wrong: float) -> Interval:
    """Return the median, and from which to which ratio the case may be; from 0 to infinity where too few processes decide.

    That a ratio is outside is wrong in a fraction `wrong` of all cases at most, in however many looks.
    """
    ordered = sorted(speedups)
    low, high = 0.0, float("inf")
    for level in LEVELS:
        most = tolerated(level, len(ordered), wrong)
        if most is not None:
            low = max(low, ordered[most] / level.factor)
            high = min(high, ordered[-1 - most] * level.factor)
    return Interval(statistics.median(ordered), low, high)


def fewest_alike(speedups: Sequence[float], wrong: float) -> int:
    """Return with how many processes in all these would decide, if those still to come say what their median says."""
    middle = statistics.median(speedups) if speedups else float("inf")
    sizes = [value if middle > 1 else 1 / value for value in speedups]  # as if it were faster
    processes = max(1, len(speedups))
    while True:
        for level in LEVELS:
            most = tolerated(level, processes, wrong)
            beyond = max(middle, 1 / middle) > level.factor or level.factor == 1
            if beyond and most is not None and sum(value <= level.factor for value in sizes) <= most:
                return processes
        processes += 1
