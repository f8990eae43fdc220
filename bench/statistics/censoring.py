"""Figures of which some are only known between bounds in, what is known of their median and its interval out.

The k-th smallest of some figures rises with each of them. So that of their lower bounds and that of their upper bounds hold it
between them, whatever the figures are, and the sign test's interval (Conover 1999, section 3.2; David and Nagaraja 2003,
section 7.1) reaches from the one to the other. Nothing is dropped, and nothing asked of the distribution or of what censors.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.statistics.intervals import SIGN_VALUES, median_interval


class Bounds(NamedTuple):
    """What is known of a figure: it is from `low` to `high`; equal where it was seen, `high` infinite where it has no bound."""

    low: float
    high: float

    def over(self, other: "Bounds") -> "Bounds":
        """Return what is known of the ratio to another positive figure; all four bounds are positive, the low ones finite."""
        return Bounds(self.low / other.high, self.high / other.low)

    def told(self, style: Callable[[float], str]) -> str:
        """Return the upper bound, as 0.37, or <0.37 where the lower is 0, or the lower where there is no upper, as >0.37."""
        if math.isinf(self.high):
            return f">{style(self.low)}" if self.low else "?"
        return f"<{style(self.high)}" if self.low == 0 < self.high else style(self.high)


class Median(NamedTuple):
    """What is known of the median of some figures, their range, and the median's interval, None where they are too few."""

    median: Bounds
    range: Bounds
    interval: Bounds | None

    def __str__(self) -> str:
        """Return the median with its interval, as 0.37 [0.35 never], or its range, as 0.37 (0.35 0.41), if it has any width."""
        middle = self.median.told(ratio)
        if self.interval:
            return "{} [{} {}]".format(middle, *map(ratio, self.interval))
        return middle if self.range == self.median else "{} ({} {})".format(middle, *map(ratio, self.range))

    @property
    def outer(self) -> Bounds:
        """The interval, or the range where there is none."""
        return self.interval or self.range


def seen(value: float) -> Bounds:
    """Return what is known of a figure that was seen."""
    return Bounds(value, value)


def median_of(figures: Sequence[Bounds]) -> Median:
    """Return what is known of the median of at least one figure; below SIGN_VALUES no interval at 95 % exists."""
    lows, highs = (sorted(bound) for bound in zip(*figures, strict=True))
    interval = None
    if len(figures) >= SIGN_VALUES:
        interval = Bounds(median_interval(lows).low, median_interval(highs).high)
    return Median(Bounds(statistics.median(lows), statistics.median(highs)), Bounds(lows[0], highs[-1]), interval)


def ratio(value: float) -> str:
    """Return a ratio as text, as 0.37 or 12.3; an infinite one is of what never came."""
    return "never" if math.isinf(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"
