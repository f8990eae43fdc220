"""The rows of whole operations in, the speed-up of each layer by sparsity out, with break-evens, noise floor and verdicts."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.break_even import break_even, told
from bench.findings.grouping import Place, Told, by_fields, by_place, sparsities_of, speedup_of
from bench.runs.row import Row
from bench.statistics.intervals import Interval

NARROW = 0.1  # half-width of an interval that says something


class Curve(NamedTuple):
    """An operation of a layer by sparsity; the break-even in words, where there are two sparsities or more."""

    op: str
    layer: str
    points: dict[float, Told]
    break_even: str


class SpeedUps(NamedTuple):
    """All curves of one place, the controls (dense against its own clone), how dense was run, and what no graph could hold."""

    place: Place
    sparsities: list[float]
    curves: list[Curve]
    controls: list[tuple[str, Interval]]
    references: dict[str, str]
    launched: list[str]  # where others are replayed as a graph: the operations and layers that are not


class Verdicts(NamedTuple):
    """How many cases have which verdict, and how many of their intervals say something."""

    counts: dict[str, int]
    narrow: int
    cases: int


class Fractions(NamedTuple):
    """A fraction by sparsity, of an operation of a layer at a place."""

    place: Place
    op: str
    layer: str
    points: dict[float, float]


def speed_ups(rows: Sequence[Row]) -> list[SpeedUps]:
    """Return the speed-ups of whole operations, place by place; dense alone is told only where there is nothing else."""
    places = list(by_place(rows))
    sparse = [(place, group) for place, group in places if any(row["model"] != "dense" for row in group)]
    return [_at(place, group) for place, group in sparse or places]


def _at(place: Place, rows: list[Row]) -> SpeedUps:
    shown = [row for row in rows if row["model"] != "dense"] or rows
    curves = [
        Curve(op, layer, points(group), told(break_even(group), group) if len(group) > 1 else "")
        for (op, layer), group in by_fields(shown, "op", "layer")
    ]
    controls = [(row["op"], speedup_of(row)) for row in rows if row["model"] == "dense"]
    references = {row["op"]: row["dense_layout"] for row in rows if "dense_layout" in row}
    launched = list(dict.fromkeys(f"{row['op']} {row['layer']}" for row in shown if "not_captured" in row))
    return SpeedUps(place, sparsities_of(shown), curves, controls, references, launched)


def points(rows: Sequence[Row]) -> dict[float, Told]:
    """Return by sparsity what the rows of one curve tell."""
    return {row["sparsity"]: Told.of(row) for row in rows}


def verdict_counts(rows: Sequence[Row]) -> Verdicts:
    """Return how many rows have which verdict."""
    narrow = sum(speedup_of(row).half_width <= NARROW for row in rows)
    return Verdicts(dict(Counter(row["verdict"] for row in rows)), narrow, len(rows))


def realised(rows: Sequence[Row]) -> list[Fractions]:
    """Return how much of the saving that FLOPs promise became time: the measured speed-up over the counted one."""
    known = [row for row in rows if row["realised_fraction"] is not None and row["model"] != "dense"]
    return [
        Fractions(place, group[0]["op"], group[0]["layer"], {row["sparsity"]: row["realised_fraction"] for row in group})
        for place, group in by_place(known, "op", "layer")
    ]
