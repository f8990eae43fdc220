"""A layer's input gradient and that of its values by one walk of its transpose.

Apart, each of the two products loads every row of the output gradient that a non-zero stands for. Here one load serves both, so
that there are two multiply-adds for each, and half as many indices, ends of rows and lines from the second cache.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import add_to
from sparse_models.kernels.cpu.csr._matrix import Matrix

LANES = 16  # of a vector, at most: an update reads so many places at once


def places_for(transposition: Tensor) -> Tensor:
    """Return memory for where in the transpose's order each value is, and as many zeros after it as a vector has lanes."""
    return transposition.new_zeros(len(transposition) + LANES)


def emit_places(emit: Emitter, order: Any, places: Any, numbers: Sequence[Any]) -> None:
    """Write these places, by where each of the transpose's values is, for its values from one to below another.

    In the step itself: indices may have changed where they lie since the step before.
    """
    with emit.loop(*numbers) as number:
        at = emit.add(places, emit.times(emit.index(order, number.place), 4))
        emit.store(emit.builder.trunc(number.place, ir.IntType(32)), at, align=4)


def emit_both(
    emit: Emitter,
    transpose: Matrix,
    sums: Any,
    tiles: Sequence[Any],
    sizes: tuple[Any, int],
    is_first: Any,
    finish: Callable[[Any, list[Any], list[Any]], None],
) -> None:
    """Add up the values' gradients for a tile, in the transpose's order, and hand each row of the input gradient to `finish`.

    The transpose is whole; tiles are those of the output gradient and of the layer's input, sizes the rows of the latter and
    its vectors. Where `is_first` holds, what was in the sums does not count. `finish` has a row, its input and its gradient.
    """
    (slope, held), (rows, chunks) = tiles, sizes
    tile_bytes, together = chunks * emit.vector_bytes, transpose.form.together

    def add(place: Any, count: int, totals: list[Any], inputs: list[Any]) -> list[Any]:
        at, dots = transpose.tile_rows(emit, place, count, slope, tile_bytes), [emit.zero()] * count
        for number in range(count):
            [value] = transpose.splats(emit, emit.add(place, number), 1)  # by itself: sums over lanes keep shuffles busy
            for chunk, vector in enumerate(emit.vectors(at[number], chunks)):
                totals[chunk] = emit.multiply_add(value, vector, totals[chunk])
                dots[number] = emit.multiply_add(inputs[chunk], vector, dots[number])
        for first in range(0, count, emit.lanes):
            some = dots[first : first + emit.lanes]
            own = emit.total(*some) if count == 1 else emit.totals(some)
            add_to(emit, own, emit.add(sums, emit.times(emit.add(place, first), emit.width)), is_first)
        return totals

    with transpose.panels(emit) as panel, transpose.rows(emit, panel, (emit.constant(0), rows)) as (row, start, end):
        inputs = emit.vectors(emit.add(held, emit.times(row, tile_bytes)), chunks)
        whole = transpose.whole_groups(emit, start, end)
        with emit.loop(start, whole, together, [emit.zero()] * chunks) as group:
            group.carried = add(group.place, together, group.carried[:], inputs)
        with emit.loop(whole, end, 1, group.carried) as one:
            one.carried = add(one.place, 1, one.carried[:], inputs)
        finish(row, inputs, one.carried)
