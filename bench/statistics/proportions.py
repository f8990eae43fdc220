"""Hits of a number of trials in, the rate with its interval out."""

from typing import NamedTuple

from scipy import special

from bench.statistics.intervals import CONFIDENCE


class Rate(NamedTuple):
    """How often something happened, and between what rates it would be expected to, with the stated confidence."""

    hits: int
    of: int
    low: float
    high: float

    def __str__(self) -> str:
        """Return the rate with its interval, in percent."""
        return f"{self.hits} of {self.of} = {self.hits / self.of:.1%} [{self.low:.1%} {self.high:.1%}]"


def rate(hits: int, of: int, confidence: float = CONFIDENCE) -> Rate:
    """Return hits of at least one trial as a rate with its interval (Clopper and Pearson 1934)."""
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(hits, of - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, of - hits, 1 - tail)) if hits < of else 1.0
    return Rate(hits, of, low, high)
