"""The rows of a run in, from which share of zeros among activations on they pay, and how many keep the accuracy, out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.findings.activations.by_zeros import by_zeros
from bench.findings.activations.thresholds import TOLD
from bench.findings.break_even import break_even, told
from bench.findings.grouping import Place, Told, by_fields
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.losses import loss_of
from sparse_models.layers import LAYERS

SEEDS = ("dense_seed_test_accuracies", "seed_test_accuracies")


class Paying(NamedTuple):
    """What zeros among activations are worth to a layer, as drawn for it, or as thresholds in trained networks make them."""

    data: str  # of the networks; empty where a layer's inputs were drawn
    place: Place  # that of no zeros
    layer: str
    sparsity: float  # of the weights, the least that was measured
    break_even: str  # in words, of the share; empty where one was measured
    points: dict[float, Told]  # by share, rising; of networks at most the last that keeps the accuracy, if any does
    lost: Interval | None  # of accuracy, at the last of these shares; None where no share is shown to keep it


def paying(whole: Sequence[Row], thresholded: Sequence[Row]) -> list[Paying]:
    """Return what rows of layers tell at the first place, and those of the operation `threshold` for each data set."""
    return [*_of_layers(whole), *_of_networks(thresholded)]


def fewest_zeros(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of each place that have the fewest zeros among activations; of others `paying` tells."""
    fields = [field for field in Place._fields if field != "zeros"]
    groups = [group for _, group in by_fields(rows, "op", *fields)]
    fewest = [min(row["zeros"] for row in group) for group in groups]
    return [row for group, least in zip(groups, fewest, strict=True) for row in group if row["zeros"] == least]


def _of_layers(rows: Sequence[Row]) -> list[Paying]:
    curves = by_zeros(filter(_skips, rows))
    there = [curve for curve in curves if curve.place == curves[0].place and curve.layer == curves[0].layer]
    least = sorted(there, key=lambda curve: curve.sparsity)[:1]
    return [Paying("", one.place, one.layer, one.sparsity, one.break_even, one.points, None) for one in least]


def _of_networks(rows: Sequence[Row]) -> Iterator[Paying]:
    whole = [row for row in rows if row.keys() >= {*TOLD, *SEEDS} and len({len(row[field]) for field in SEEDS}) == 1]
    for _, of_data in by_fields(filter(_skips, whole), "data"):
        fields = [field for field in Place._fields if field != "zeros"]
        _, first = next(by_fields(of_data, *fields, "layer"))
        _, least = next(by_fields(sorted(first, key=lambda row: row["sparsity"]), "sparsity"))
        curve = sorted(least, key=lambda row: row["zeros"])
        losses = [loss_of(*(row[field] for field in SEEDS)) for row in curve]
        kept = [number for number, loss in enumerate(losses) if loss.verdict == "little"]
        until = kept[-1] if kept else len(curve) - 1
        row = curve[0]
        yield Paying(
            data=row["data"],
            place=Place.of(row)._replace(zeros=0.0),
            layer=row["layer"],
            sparsity=row["sparsity"],
            break_even=told(break_even(curve, "zeros"), curve, "zeros") if len(curve) > 1 else "",
            points={one["zeros"]: Told.of(one) for one in curve[: until + 1]},
            lost=losses[until].interval if kept else None,
        )


def _skips(row: Row) -> bool:
    return row["layer"] in LAYERS and LAYERS[row["layer"]].skips_zeros
