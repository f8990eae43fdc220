"""The rows of whole operations in, how each layer fares against dense in a lower precision than its own out.

Who may compute in fewer bits has a faster dense product first of all: precision is a rival of sparsity. Both were measured by
the same processes, though not in pairs of rounds: each process gives a ratio of its own, and the interval is over those.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.findings.grouping import Place, by_fields, by_place, ratio_of, sparsities_of
from bench.runs.row import Row
from bench.statistics.intervals import Interval

# From the most bits of a factor to the fewest; those of one line are no rivals of one another.
FALLING = (("float64",), ("float32",), ("tf32",), ("bfloat16", "float16"))


class Against(NamedTuple):
    """An operation of a layer by sparsity, against dense in a lower precision."""

    op: str
    layer: str
    precision: str
    points: dict[float, Interval]


class Precisions(NamedTuple):
    """What lower precisions do at one place: for dense itself, by operation and precision, and against each layer."""

    place: Place
    sparsities: list[float]
    dense: list[tuple[str, str, Interval]]
    layers: list[Against]


def precisions(rows: Sequence[Row]) -> list[Precisions]:
    """Return what the rows tell of places at which dense was measured in lower precisions too."""
    references = {(row["op"], Place.of(row)): row for row in rows if row["model"] == "dense" and row["layer"] == "dense"}
    found = []
    for place, group in by_place(rows):
        dense, layers = [], []
        for bits in lower(place.dtype):
            there = place._replace(dtype=bits)
            for (op, layer), of_layer in by_fields(group, "op", "layer"):
                rival = references.get((op, there))
                ratios = {row["sparsity"]: ratio for row in of_layer if rival and (ratio := _against(row, rival))}
                if ratios and of_layer[0]["model"] == "dense":
                    dense.append((op, bits, ratios[0.0].inverse))
                elif ratios:
                    layers.append(Against(op, layer, bits, ratios))
        if layers:
            sparse = [row for row in group if row["model"] != "dense"]
            found.append(Precisions(place, sparsities_of(sparse), dense, layers))
    return found


def lower(dtype: str) -> Iterator[str]:
    """Yield the number types of fewer bits of a factor than `dtype`."""
    ranks = {name: rank for rank, names in enumerate(FALLING) for name in names}
    yield from (name for name, rank in ranks.items() if dtype in ranks and rank > ranks[dtype])


def _against(row: Row, rival: Row) -> Interval | None:
    """Return the speed-up of a row's candidate, or of its dense reference where it is dense, over the rival's dense."""
    return ratio_of(
        rival, "process_dense_seconds", row, "process_dense_seconds" if row["model"] == "dense" else "process_seconds"
    )
