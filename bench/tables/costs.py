"""What sparsity promises and costs beside its speed-up in, a table of each out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from bench.findings.costs import Bandwidth, Energy, Memory, Pruned, Roofline
from bench.findings.speedups import Fractions
from bench.tables.grid import Cell, Grid
from bench.tables.text import marked, size

_T = TypeVar("_T", Fractions, Roofline)


def named(sparsities: Iterable[float]) -> list[str]:
    """Return the headers of columns that stand for sparsities."""
    return [f"{sparsity:g}" for sparsity in sparsities]


def cells(points: Mapping[float, Cell], sparsities: Iterable[float]) -> list[Cell]:
    """Return the cells of a row, one for each sparsity, empty where nothing is told."""
    return [points.get(sparsity, "") for sparsity in sparsities]


def by_conditions(found: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield what was found under the same conditions, whatever the shape."""
    for _, group in groupby(sorted(found, key=_conditions), _conditions):
        yield list(group)


def _conditions(one: Fractions | Roofline) -> str:
    return one.place.conditions


def _all_sparsities(of: Iterable[Mapping[float, object]]) -> list[float]:
    return sorted({sparsity for points in of for sparsity in points})


def realised(found: Sequence[Fractions]) -> tuple[str, Grid]:
    """Return the table of how much of the saving that FLOPs promise became time, of places that differ in shape alone."""
    at = _all_sparsities(one.points for one in found)
    title = f"Realised fraction ({_conditions(found[0])}): measured speed-up over the counted one (1 would be all)"
    table = Grid(["shape", "operation", "layer", *named(at)], keys=3)
    for place, op, layer, points in found:
        table.add_row(place.size, op, layer, *cells({one: _fraction(part) for one, part in points.items()}, at))
    return title, table


def _fraction(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def rooflines(found: Sequence[Roofline]) -> tuple[str, Grid]:
    """Return the table of how near kernels come to what bounds them, of places that differ in shape alone."""
    at = _all_sparsities(one.points for one in found)
    title = (
        f"Roofline ({_conditions(found[0])}): GFLOP/s executed / those of multiply-adds which each load a vector of a tile as "
        "large, and what part that is"
    )
    table = Grid(["shape", "operation", "layer", *named(at)], keys=3)
    for place, op, layer, points in found:
        rates = {one: f"{point.gflops:.0f}/{point.bound_gflops:.0f} {point.fraction:.0%}" for one, point in points.items()}
        table.add_row(place.size, op, layer, *cells(rates, at))
    return title, table


def bandwidth(found: Bandwidth) -> tuple[str, Grid]:
    """Return the table of the bytes that forward passes with cold weights move by the second."""
    title = f"GB/s moved, weights from memory, and the part of the {found.bound_gb_per_s:.0f} that it gives, {found.place}"
    if found.dense_gb_per_s:
        title += f"\n(dense: {found.dense_gb_per_s:.0f} = {found.dense_gb_per_s / found.bound_gb_per_s:.0%})"
    table = Grid(["layer", *named(found.sparsities)])
    for layer, points in found.layers.items():
        rates = {at: f"{rate:.0f} = {rate / found.bound_gb_per_s:.0%}" for at, rate in points.items()}
        table.add_row(layer, *cells(rates, found.sparsities))
    return title, table


def memory(found: Memory) -> tuple[str, Grid]:
    """Return the table of what layers take, each figure in a line of its own."""
    dense = f" (dense: {size(found.dense[0])} stored, {size(found.dense[1])} peak)" if found.dense else ""
    title = (
        f"Memory, {found.place}: bytes stored as a fraction of dense's, the peak above them while stepping, and what a step "
        f"takes of its time with activations in the layout that the layer does not prefer{dense}"
    )
    table = Grid(["layer", "", *named(found.sparsities)], keys=2)
    for layer, points in found.layers.items():
        told = {
            "stored": {at: f"{taken.stored:.2f}" for at, taken in points.items()},
            "peak": {at: size(taken.peak_bytes) for at, taken in points.items()},
            "other layout": {at: f"{taken.other_layout:.2f}" for at, taken in points.items() if taken.other_layout},
        }
        for number, (what, figures) in enumerate(told.items()):
            table.add_row("" if number else layer, what, *cells(figures, found.sparsities))
    return title, table


def energy(found: Energy) -> tuple[str, Grid]:
    """Return the table of joules."""
    dense = ", ".join(f"{op} {joules * 1e3:.3g} mJ" for op, joules in found.dense.items())
    title = f"Energy of the whole card, {found.place}: joules of a call as a fraction of dense's ({dense})"
    table = Grid(["operation", "layer", *named(found.sparsities)], keys=2)
    for op, layer, points in found.layers:
        table.add_row(op, layer, *cells({at: f"{fraction:.2f}" for at, fraction in points.items()}, found.sparsities))
    return title, table


def pruned(found: Pruned) -> tuple[str, Grid]:
    """Return the table of networks that were trained dense and pruned."""
    title = (
        f"Pruned by magnitude after training ({found.conditions}): test accuracy, mean of {found.seeds} "
        f"seed{'s' * (found.seeds != 1)} (lowest highest), dense, pruned, and fine-tuned for {found.tuning_epochs} epochs; "
        "bytes stored as a fraction of dense's; speed-up of inference over dense at its best [95 % interval]"
    )
    headers = ["network", "layer", "sparsity", "dense", "pruned", "fine-tuned", "bytes"]
    table = Grid([*headers, *(f"batch {batch}" for batch in found.batches)], keys=3)
    for one in found.networks:
        accuracies = (str(accuracy) for accuracy in (one.dense, one.pruned, one.tuned))
        speedups = [marked(one.speedups[batch]) if batch in one.speedups else "" for batch in found.batches]
        table.add_row(one.name, one.layer, f"{one.sparsity:g}", *accuracies, f"{one.stored:.2f}", *speedups)
    return title, table
