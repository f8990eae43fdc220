"""What layers gain by zero inputs in, a table of it out."""

from collections.abc import Sequence

from bench.findings.activations.by_zeros import ByZeros
from bench.tables.costs import cells, named
from bench.tables.grid import Grid
from bench.tables.text import marked


def by_place(curves: Sequence[ByZeros]) -> list[list[ByZeros]]:
    """Return the curves of each place, which stand in one table."""
    return [[curve for curve in curves if curve.place == place] for place in dict.fromkeys(curve.place for curve in curves)]


def by_zeros(curves: Sequence[ByZeros]) -> tuple[str, Grid]:
    """Return the table of what layers gain at one place."""
    title = (
        f"Forward speed-up over dense by the share of zero inputs, {curves[0].place}: median of the processes [95 % interval], "
        "and from which share on the layer is at least as fast"
    )
    shares = sorted({share for curve in curves for share in curve.points})
    table = Grid(["layer", "sparsity", *named(shares), "break-even"], keys=2)
    for curve in curves:
        told = cells({share: marked(told) for share, told in curve.points.items()}, shares)
        table.add_row(curve.layer, f"{curve.sparsity:g}", *told, curve.break_even)
    return title, table
