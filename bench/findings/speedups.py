"""The rows of whole operations in, the speed-ups of layers and patterns by sparsity out, with break-evens and verdicts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.findings.break_even import break_even, told
from bench.findings.grouping import Place, Told, by_fields, by_place, patterned, ratio_of, sparsities_of, speedup_of
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from sparse_models.masks import UNSTRUCTURED

NARROW = 0.1  # half-width of an interval that says something


class Curve(NamedTuple):
    """An operation of a layer by sparsity: speed-ups, and what counted FLOPs promise.

    The break-even, in words and as a figure, is told where there are two sparsities or more.
    """

    op: str
    layer: str
    points: dict[float, Told]
    break_even: str
    crossing: Interval | None
    counted: dict[float, float]


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


class Best(NamedTuple):
    """The fastest layer of a pattern: against dense, and as many times the fastest unstructured layer's speed."""

    layer: str
    told: Told
    against_unstructured: Interval | None  # None for that layer itself, and where no two processes measured both


class AtEqualSparsity(NamedTuple):
    """At one place, by operation and pattern: the fastest layer at each sparsity at which two patterns were measured."""

    place: Place
    sparsities: list[float]
    patterns: list[tuple[str, str, dict[float, Best]]]  # operation, pattern


def speed_ups(rows: Sequence[Row]) -> list[SpeedUps]:
    """Return the speed-ups of whole operations, place by place; dense alone is told only where there is nothing else."""
    places = list(by_place(rows))
    sparse = [(place, group) for place, group in places if any(row["model"] != "dense" for row in group)]
    return [_at(place, group) for place, group in sparse or places]


def _at(place: Place, rows: list[Row]) -> SpeedUps:
    shown = [row for row in rows if row["model"] != "dense"] or rows
    curves = [_curve(op, layer, group) for (op, layer), group in by_fields(shown, "op", "layer")]
    controls = [(row["op"], speedup_of(row)) for row in rows if row["model"] == "dense"]
    references = {row["op"]: row["dense_layout"] for row in rows if "dense_layout" in row}
    launched = list(dict.fromkeys(f"{row['op']} {row['layer']}" for row in shown if "not_captured" in row))
    return SpeedUps(place, sparsities_of(shown), curves, controls, references, launched)


def _curve(op: str, layer: str, rows: Sequence[Row]) -> Curve:
    even = break_even(rows) if len(rows) > 1 else None
    counted = {row["sparsity"]: row["dense_flops_counted"] / row["flops_counted"] for row in rows if row["flops_counted"]}
    return Curve(op, layer, points(rows), told(even, rows) if even else "", even, counted)


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


def patterns(rows: Sequence[Row]) -> list[AtEqualSparsity]:
    """Return how patterns fare, place by place; nothing where there is but one of sparse layers."""
    found = []
    for place, there in by_place(patterned(row) for row in rows if row["model"] == "sparse"):
        compared = [
            row
            for _, group in by_fields(there, "op", "sparsity")
            if len({one["pattern_key"] for one in group}) > 1
            for row in group
        ]
        told = [
            (op, group[0]["pattern"], {at: _best(group, compared, at) for at in sparsities_of(group)})
            for (op, _), group in by_fields(compared, "op", "pattern_key")
        ]
        if told:
            found.append(AtEqualSparsity(place, sparsities_of(compared), told))
    return found


def _best(rows: Sequence[Row], there: Sequence[Row], sparsity: float) -> Best:
    """Return the fastest of a pattern's rows at a sparsity, beside the fastest unstructured one of the same operation there."""
    best = _fastest(row for row in rows if row["sparsity"] == sparsity)
    free = [row for row in there if (row["op"], row["sparsity"], row["pattern"]) == (best["op"], sparsity, UNSTRUCTURED.name)]
    is_other = bool(free) and best["pattern"] != UNSTRUCTURED.name
    # Through the dense reference that ran beside each: what the machine did meanwhile, it did to that as well.
    against = ratio_of(best, "process_speedups", _fastest(free), "process_speedups") if is_other else None
    return Best(best["layer"], Told.of(best), against)


def _fastest(rows: Iterable[Row]) -> Row:
    return max(rows, key=lambda row: row["speedup"])
