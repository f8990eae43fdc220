"""A sparse layer's row and those beside it in, how dense in other ways, or another pattern, fares against it out."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.grouping import Place, patterned
from bench.findings.other_dense import against, lower
from bench.grids import UNPRUNED
from bench.runs.row import Row
from bench.statistics.intervals import Interval


class Rival(NamedTuple):
    """What may take the sparse layer's place: how many times the layer's speed it has, over processes."""

    name: str
    model: str
    against: Interval
    is_better: bool | None  # None where the interval holds 1
    verdict: str = ""  # over dense at its best


def rivals(row: Row, others: Sequence[Row]) -> list[Rival]:
    """Return the rivals of a layer's row among the rows of its operation: dense models, and layers of other patterns."""
    place = Place.of(row)
    found = []
    for other in others:
        is_equal = Place.of(other) == place and other["sparsity"] == row["sparsity"]
        is_narrow = is_equal and other["model"] == "narrow"
        is_pattern = is_equal and other["model"] == "sparse" and _pattern(other) != _pattern(row)
        is_lower = (
            other["model"] == "dense"
            and other["layer"] == "dense"
            and other["dtype"] in lower(place.dtype)
            and Place.of(other)._replace(dtype=place.dtype) == place
        )
        is_unpruned = other["model"] == UNPRUNED and Place.of(other) == place
        if (is_narrow or is_lower or is_pattern or is_unpruned) and (found_to_be := against(row, other)):
            name, ratio = f"{other['dtype']} dense" if is_lower else other["layer"], found_to_be.inverse
            is_better = None if ratio.low <= 1 <= ratio.high else ratio.low > 1
            found.append(Rival(name, other["model"], ratio, is_better, other["verdict"]))
    return found


def _pattern(row: Row) -> str:
    return str(patterned(row)["pattern_key"])
