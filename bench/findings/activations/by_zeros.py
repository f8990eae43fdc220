"""The rows of forward passes in, what each layer gains by the share of its inputs that are zero out."""

from collections.abc import Iterable
from typing import NamedTuple

from bench.findings.break_even import CURVE, break_even, told
from bench.findings.grouping import Place, Told, by_fields
from bench.runs.row import Row


class ByZeros(NamedTuple):
    """What a layer's forward pass gains by the share of its inputs that are zero, and from which share on it pays."""

    place: Place  # that of no zeros
    layer: str
    sparsity: float
    points: dict[float, Told]
    break_even: str


def by_zeros(rows: Iterable[Row]) -> list[ByZeros]:
    """Return the curves of layers' forward passes along the share of zero inputs, where there are two shares or more."""
    found = []
    fields = [field for field in CURVE if field != "zeros"]
    for _, group in by_fields([row for row in rows if row["model"] == "sparse"], *fields, "sparsity"):
        if len(group) > 1:
            first, points = group[0], {row["zeros"]: Told.of(row) for row in sorted(group, key=lambda row: row["zeros"])}
            even = told(break_even(group, "zeros"), group, "zeros")
            found.append(ByZeros(Place.of(first)._replace(zeros=0.0), first["layer"], first["sparsity"], points, even))
    return found
