"""A layer's input gradient and that of its values by one walk of its transpose.

Apart, each of the two products loads every row of the output gradient that a non-zero stands for. Here one load serves both, so
that there are two multiply-adds for each, and half as many indices, ends of rows and lines from the second cache.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._tile import add_to
from sparse_models.kernels.cpu.csr._matrix import Matrix
from sparse_models.kernels.cpu.permute import gather
from sparse_models.kernels.link import Link

if TYPE_CHECKING:
    from sparse_models.kernels.cpu._pass import Layer


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


def own_bytes(links: Sequence[Link]) -> int:
    """Return the bytes that `emit_own` takes."""
    return sum(2 * (link.values.nbytes + CACHE_LINE) for link in links[1:])


def emit_own(emit: Emitter, layers: list["Layer"], orders: Sequence[Any], at: Any) -> None:
    """Give each layer but the first values in its transpose's order, copied to an address on, and room for sums in it.

    Copied in each step: a copy from the step before could not be known to be current.
    """
    for number, order in list(enumerate(orders))[1:]:
        layer = layers[number]
        values, size = emit.aligned(at), emit.times(layer.numbers, emit.width)
        sums = emit.aligned(emit.add(values, size))
        at = emit.add(sums, size)
        gather(emit, layer.values, order, values, (emit.constant(0), layer.numbers))
        layers[number] = layer._replace(transposed_values=values, transposed_sums=sums)


def emit_backward(
    emit: Emitter,
    layers: Sequence["Layer"],
    held: Sequence[Any],
    chunks: int,
    is_first: Any,
    following: Sequence[Any],
) -> None:
    """Add up the gradients of each layer for a tile, the last layer's first, both of a layer by one walk.

    Held are the input of each layer and the gradient by the logits. A row of an input is read once, and the row of its gradient
    takes its place. A bias's comes with the output gradient's rows. Meanwhile so many bytes from an address on that are
    `following` are asked for, some with each row of the last walk.
    """
    tile_bytes = chunks * emit.vector_bytes
    with emit.loop(emit.constant(0), layers[-1].rows) as row:
        own = emit.vectors(emit.add(held[-1], emit.times(row.place, tile_bytes)), chunks)
        layers[-1].add_bias(emit, row.place, own, is_first)
    lines = emit.add(emit.builder.sdiv(following[1], emit.times(layers[0].rows, CACHE_LINE)), 1)
    for number, layer in reversed(list(enumerate(layers))[1:]):
        inputs = layers[number - 1]

        def finish(row: Any, passed: list[Any], totals: list[Any], inputs: "Layer" = inputs, at: Any = held[number]) -> None:
            totals = [emit.passed(*pair) for pair in zip(passed, totals, strict=True)]
            inputs.add_bias(emit, row, totals, is_first)
            emit.write(totals, emit.add(at, emit.times(row, tile_bytes)))
            if inputs is layers[0]:
                line = emit.add(following[0], emit.times(row, emit.times(lines, CACHE_LINE)))
                with emit.loop(line, emit.add(line, emit.times(lines, CACHE_LINE)), CACHE_LINE) as ahead:
                    emit.ask_for(ahead.place)

        transpose = layer.transposed_form.matrix(layer.transposed_arrays, layer.transposed_values)
        assert isinstance(transpose, Matrix)
        tiles = held[number + 1], held[number]
        emit_both(emit, transpose, layer.transposed_sums, tiles, (inputs.rows, chunks), is_first, finish)
    first = layers[0]
    matrix = first.form.matrix(first.arrays, first.own_values)
    matrix.sampled(emit, first.rows, held[1], held[0], chunks, is_first, lambda *_: None, None)
