"""The row of a sparse layer and those of dense beside it in, how dense in fewer weights or fewer bits fares against it out."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.grouping import Place, ratio_of
from bench.findings.precisions import lower
from bench.runs.row import Row
from bench.statistics.intervals import Interval


class Rival(NamedTuple):
    """A dense model that takes the sparse layer's place: how many times the layer's speed it has, over processes."""

    name: str
    against: Interval
    is_better: bool | None  # None where the interval holds 1


def rivals(row: Row, dense: Sequence[Row]) -> list[Rival]:
    """Return the rivals of a layer's row among the rows of its operation that are not sparse."""
    place = Place.of(row)
    found = []
    for other in dense:
        is_narrow = other["model"] == "narrow" and Place.of(other) == place and other["sparsity"] == row["sparsity"]
        is_lower = (
            other["model"] == "dense"
            and other["layer"] == "dense"
            and other["dtype"] in lower(place.dtype)
            and Place.of(other)._replace(dtype=place.dtype) == place
        )
        # Where dense is its own reference, that is the fastest it was found to be; the candidate is its clone.
        arm = "process_seconds" if is_narrow else "process_dense_seconds"
        if (is_narrow or is_lower) and (against := ratio_of(row, "process_seconds", other, arm)):
            name = other["layer"] if is_narrow else f"{other['dtype']} dense"
            found.append(Rival(name, against, None if against.low <= 1 <= against.high else against.low > 1))
    return found
