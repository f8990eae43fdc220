"""The rows of whole operations in, how each layer fares against dense in ways that need no zeros out: fewer bits, own kernels.

Who may compute in fewer bits has a faster dense product first of all: precision is a rival of sparsity. So are kernels: what a
layer gains over kernels of ours that keep every weight is what zeros alone gain. All were measured by the same processes,
though not in pairs of rounds: each process gives a ratio of its own, and the interval is over those.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.findings.grouping import Place, by_fields, by_place, ratio_of, sparsities_of, speedup_of
from bench.grids import UNPRUNED
from bench.runs.row import Row
from bench.statistics.intervals import Interval

# From the most bits of a factor to the fewest; those of one line are no rivals of one another.
FALLING = (("float64",), ("float32",), ("tf32",), ("bfloat16", "float16"))


class Against(NamedTuple):
    """An operation of a layer by sparsity, against dense in another way."""

    op: str
    layer: str
    other: str
    points: dict[float, Interval]


class OtherDense(NamedTuple):
    """What dense in other ways does at one place: against dense at its best, by operation and way, and against each layer."""

    place: Place
    sparsities: list[float]
    dense: list[tuple[str, str, Interval]]
    layers: list[Against]


def other_dense(rows: Sequence[Row]) -> list[OtherDense]:
    """Return what rows with layers as they are called tell of places at which dense was measured in other ways too."""
    references = {(row["op"], Place.of(row)): row for row in rows if row["model"] == "dense" and row["layer"] == "dense"}
    kept = {(row["op"], Place.of(row)): row for row in rows if row["model"] == UNPRUNED}
    found = []
    for place, group in by_place(rows):
        own = [row for row in group if row["model"] == UNPRUNED]
        sparse = [row for row in group if row["model"] not in ("dense", UNPRUNED)]
        dense, layers = [], list[Against]()
        for name, others in _ways(place, references, kept):
            for op, other in others.items():
                reference = references.get((op, place))
                if other["model"] == "dense" and reference and (gain := against(other, reference)):
                    dense.append((op, name, gain))
            for (op, layer), of_layer in by_fields(sparse, "op", "layer"):
                to = others.get(op)
                if ratios := {row["sparsity"]: ratio for row in of_layer if to and (ratio := against(row, to))}:
                    layers.append(Against(op, layer, name, ratios))
        dense += [(row["op"], row["layer"], speedup_of(row)) for row in own]  # by pairs of rounds, as its verdict is
        if layers or own:
            found.append(OtherDense(place, sparsities_of(sparse), dense, layers))
    return found


def _ways(
    place: Place, references: Mapping[tuple[str, Place], Row], kept: Mapping[tuple[str, Place], Row]
) -> Iterator[tuple[str, dict[str, Row]]]:
    """Yield each way to run dense at a place, and its rows by operation."""
    for bits in lower(place.dtype):
        yield f"dense {bits}", {op: row for (op, there), row in references.items() if there == place._replace(dtype=bits)}
    own = {op: row for (op, there), row in kept.items() if there == place}
    for name in dict.fromkeys(row["layer"] for row in own.values()):
        yield name, {op: row for op, row in own.items() if row["layer"] == name}


def lower(dtype: str) -> Iterator[str]:
    """Yield the number types of fewer bits of a factor than `dtype`."""
    ranks = {name: rank for rank, names in enumerate(FALLING) for name in names}
    yield from (name for name, rank in ranks.items() if dtype in ranks and rank > ranks[dtype])


def against(row: Row, other: Row) -> Interval | None:
    """Return how many times as fast as dense in another way a row's candidate is, or its reference where it is dense.

    Where dense is its own reference, that is the fastest it was found to be; the candidate is its clone.
    """
    of_row, of_other = ("process_dense_seconds" if one["model"] == "dense" else "process_seconds" for one in (row, other))
    return ratio_of(other, of_other, row, of_row)
