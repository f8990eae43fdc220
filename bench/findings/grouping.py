"""Which rows belong together: those that were measured at one place, and those that agree in some fields."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from bench.runs.row import Row
from bench.statistics.intervals import Interval

REGIMES = {"warm": "", "cold": ", cold caches", "graph": ", graph replay", "graph-cold": ", graph replay, cold weights"}


class Place(NamedTuple):
    """Where and how something was measured: rows of one place stand in one table."""

    shape: str
    batch: int
    device: str
    dtype: str
    threads: int
    regime: str
    skew: float

    @classmethod
    def of(cls, row: Row) -> "Place":
        """Return the place of a row."""
        return cls(*(row[field] for field in cls._fields))

    @property
    def conditions(self) -> str:
        """How it was measured, in words."""
        regime = REGIMES[self.regime]
        skew = f", rows skewed by {self.skew:g}" if self.skew else ""
        return f"{self.device}, {self.dtype}, {self.threads} thread{'s' * (self.threads != 1)}{regime}{skew}"

    def __str__(self) -> str:
        """Return the place in words."""
        return f"{self.shape} batch {self.batch} ({self.conditions})"


class Told(NamedTuple):
    """What is told of one case: how fast it is beside its reference, and whether that is decided."""

    speedup: Interval
    verdict: str

    @classmethod
    def of(cls, row: Row) -> "Told":
        """Return what a row tells."""
        return cls(speedup_of(row), row["verdict"])


def speedup_of(row: Row) -> Interval:
    """Return the speed-up of a row with its interval."""
    return Interval(row["speedup"], row["speedup_low"], row["speedup_high"])


def by_fields(rows: Iterable[Row], *fields: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Yield the rows that agree in `fields`, group by group, in order of first appearance."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(row[field]) for field in fields)

    rows = list(rows)
    order = list(dict.fromkeys(map(key, rows)))
    for value, group in groupby(sorted(rows, key=lambda row: order.index(key(row))), key):
        yield value, list(group)


def by_place(rows: Iterable[Row], *fields: str) -> Iterator[tuple[Place, list[Row]]]:
    """Yield the rows of one place that agree in `fields`, group by group, in order of first appearance."""
    for _, group in by_fields(rows, *Place._fields, *fields):
        yield Place.of(group[0]), group


def sparsities_of(rows: Iterable[Row]) -> list[float]:
    """Return the different sparsities of some rows, rising."""
    return sorted({row["sparsity"] for row in rows})
