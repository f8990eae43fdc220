"""Rows in, what sparsity costs beside time out: memory, mask updates, accuracy after pruning; and what bounds a kernel."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from bench.findings.grouping import Place, Told, by_fields, by_place, sparsities_of, speedup_of
from bench.findings.trainings import OverSeeds
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import MARGIN

_T = TypeVar("_T")


class Bounded(NamedTuple):
    """GFLOP/s that a kernel executes, their part of what bounds it, and those of the bound."""

    gflops: float
    fraction: float
    bound_gflops: float


class Roofline(NamedTuple):
    """How near a kernel comes to what bounds it, by sparsity: with another sparsity, another tile may be the best."""

    place: Place
    op: str
    layer: str
    points: dict[float, Bounded]


class Bandwidth(NamedTuple):
    """GB/s that forward passes with cold weights move, by layer and sparsity, and the most that the machine's memory gives."""

    place: Place
    sparsities: list[float]
    bound_gb_per_s: float
    dense_gb_per_s: float | None
    layers: dict[str, dict[float, float]]


class Bytes(NamedTuple):
    """Bytes stored as a fraction of dense's, the peak above them while stepping, and the step's time in the other layout."""

    stored: float
    peak_bytes: int
    other_layout: float | None  # where the row tells it


class Memory(NamedTuple):
    """What the layers of one place take, and dense's own bytes where it was measured too."""

    place: Place
    sparsities: list[float]
    layers: dict[str, dict[float, Bytes]]
    dense: tuple[int, int] | None  # stored, peak


class Energy(NamedTuple):
    """Joules of a call of dense, by operation, and each layer's as a fraction of them, by sparsity."""

    place: Place
    sparsities: list[float]
    dense: dict[str, float]
    layers: list[tuple[str, str, dict[float, float]]]  # operation, layer


class UpdateCost(NamedTuple):
    """Seconds of one mask update, and the same in dense training steps, by sparsity."""

    rule: str
    layer: str
    points: dict[float, tuple[float, Interval]]


class UpdateCosts(NamedTuple):
    """What mask updates cost at one place."""

    place: Place
    sparsities: list[float]
    costs: list[UpdateCost]


class Interference(NamedTuple):
    """Whether PyTorch's own operations suffer from a layer's, or it from theirs, by layer and sparsity."""

    place: Place
    sparsities: list[float]
    layers: dict[str, dict[float, Told]]


class PrunedNetwork(NamedTuple):
    """A trained network of one sparsity: test accuracies, bytes over dense's, and how fast it infers, by batch."""

    name: str
    layer: str
    sparsity: float
    dense: OverSeeds
    pruned: OverSeeds
    tuned: OverSeeds
    stored: float
    speedups: dict[int, Told]
    dense_seconds: dict[int, float]  # of a forward pass


class Pruned(NamedTuple):
    """What became of networks that were trained dense and pruned, measured under the same conditions."""

    conditions: str
    seeds: int
    tuning_epochs: int
    batches: list[int]
    networks: list[PrunedNetwork]


def rooflines(rows: Sequence[Row]) -> list[Roofline]:
    """Return what the rows tell that know their kernel's bound; the bound of a tile that one of its rows exceeds is none."""
    found = []
    for place, group in by_place((row for row in rows if "bound_gflops" in row), "op", "layer"):
        exceeded = {row["tile_bytes"] for row in group if row.get("bound_fraction", math.inf) > 1}
        points = {row["sparsity"]: _bounded(row) for row in group if row["tile_bytes"] not in exceeded}
        if points:
            found.append(Roofline(place, group[0]["op"], group[0]["layer"], points))
    return found


def _bounded(row: Row) -> Bounded:
    return Bounded(row["gflops"], row["bound_fraction"], row["bound_gflops"])


def _by_layer(rows: Sequence[Row], tell: Callable[[Row], _T]) -> dict[str, dict[float, _T]]:
    """Return what is told of each row, by layer and sparsity."""
    return {layer: {row["sparsity"]: tell(row) for row in group} for (layer,), group in by_fields(rows, "layer")}


def bandwidths(rows: Sequence[Row]) -> list[Bandwidth]:
    """Return what the rows tell that know the bytes they move, place by place."""
    found = []
    for place, group in by_place(row for row in rows if "bytes_moved" in row):
        sparse = [row for row in group if row["model"] != "dense"]
        layers = _by_layer(sparse, _gb_per_s)
        dense = next((_gb_per_s(row) for row in group if row["model"] == "dense"), None)
        most = max(map(_gb_per_s, group))
        if layers and most <= group[0]["bound_gb_per_s"] * (1 + MARGIN):  # what a layer moves beyond that, memory gives too
            bound = max(most, group[0]["bound_gb_per_s"])
            found.append(Bandwidth(place, sparsities_of(sparse), bound, dense, layers))
    return found


def _gb_per_s(row: Row) -> float:
    return float(row["bytes_moved"] / row["seconds"] / 1e9)


def memories(rows: Sequence[Row]) -> list[Memory]:
    """Return what the rows tell that know their peak of memory, place by place."""
    found = []
    for place, group in by_place((row for row in rows if "peak_bytes" in row), "op"):  # a layer's step, and a whole model's
        sparse = [row for row in group if row["model"] != "dense"]
        layers = _by_layer(sparse, _bytes)
        dense = next(((row["bytes_stored"], row["peak_bytes"]) for row in group if row["model"] == "dense"), None)
        if layers:
            found.append(Memory(place, sparsities_of(sparse), layers, dense))
    return found


def _bytes(row: Row) -> Bytes:
    return Bytes(row["bytes_stored"] / row["dense_bytes_stored"], row["peak_bytes"], row.get("other_layout_cost"))


def energies(rows: Sequence[Row]) -> list[Energy]:
    """Return what the rows tell whose joules were measured, place by place."""
    found = []
    for place, group in by_place(row for row in rows if "joules" in row and "dense_joules" in row and row["model"] != "dense"):
        layers = [
            (op, layer, {row["sparsity"]: row["joules"] / row["dense_joules"] for row in of_layer})
            for (op, layer), of_layer in by_fields(group, "op", "layer")
        ]
        found.append(Energy(place, sparsities_of(group), {row["op"]: row["dense_joules"] for row in group}, layers))
    return found


def update_costs(rows: Sequence[Row]) -> list[UpdateCosts]:
    """Return what the rows of mask updates tell, place by place."""
    return [
        UpdateCosts(
            place,
            sparsities_of(group),
            [
                UpdateCost(rule, layer, {row["sparsity"]: (row["seconds"], speedup_of(row).inverse) for row in of_rule})
                for (rule, layer), of_rule in by_fields(group, "update", "layer")
            ],
        )
        for place, group in by_place(rows)
    ]


def interferences(rows: Sequence[Row]) -> list[Interference]:
    """Return what the rows of a layer in turns with PyTorch's own products tell, place by place."""
    return [Interference(place, sparsities_of(group), _by_layer(group, Told.of)) for place, group in by_place(rows)]


def pruned(rows: Sequence[Row]) -> list[Pruned]:
    """Return what the rows of pruned networks tell, whatever the network, the sparsity and the batch."""
    found = []
    for _, group in by_fields(rows, "device", "dtype", "threads", "regime"):
        first, batches = group[0], sorted({row["batch"] for row in group})
        networks = [_pruned(one) for _, one in by_fields(group, "data", "layer", "sparsity")]
        conditions, seeds = Place.of(first).conditions, len(first["tuned_accuracies"])
        found.append(Pruned(conditions, seeds, first["tuning_epochs"], batches, networks))
    return found


def _pruned(rows: Sequence[Row]) -> PrunedNetwork:
    first = rows[0]
    dense, cut, tuned = (OverSeeds.over(first[f"{when}_accuracies"]) for when in ("dense", "pruned", "tuned"))
    stored = max(row["bytes_stored"] / row["dense_bytes_stored"] for row in rows)
    what = (first["data"], first["layer"], first["sparsity"])
    dense_seconds = {row["batch"]: row["dense_seconds"] for row in rows}
    return PrunedNetwork(*what, dense, cut, tuned, stored, {row["batch"]: Told.of(row) for row in rows}, dense_seconds)
