"""Loss and gradients of a chain of sparse layers, a tile of the batch at a time.

A tile goes through all layers, forward and backward, while it is in the caches; the gradients of the weights, at the non-zeros
alone, are added up from tile to tile. Layer by layer, every activation would go out to memory and come back three times.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._loss import cross_entropy
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import TILE_BYTES, TOGETHER, Sums, add_to, emitter_for
from sparse_models.kernels.cpu.chain._both import emit_backward, emit_own
from sparse_models.kernels.cpu.chain._cut import Cut, Form, arguments_for, heights_of, rows_of
from sparse_models.kernels.cpu.permute import scatter
from sparse_models.kernels.cpu.transpose import take_in
from sparse_models.kernels.link import Gradients, Link
from sparse_models.kernels.variant import Variant

CHUNKS = 4  # vectors in a tile, unless another variant is chosen: so that all layers' rows of it stay in the second cache
FIRST, AFTER = 15, 7  # arguments: those before the layers', and those of a layer beside its matrices


def default(links: Sequence[Link]) -> Variant:
    """Return the variant that suits most machines: a tile goes through all layers where a second cache holds it in all."""
    fits = rows_of(heights_of(links)) * CHUNKS * vector_bytes() <= TILE_BYTES
    return Variant(CHUNKS if fits else 0, TOGETHER, vector_bytes(), threads())


def tile_by_tile(links: Sequence[Link], x: Tensor, labels: Tensor, variant: Variant | None = None) -> Gradients:
    """Return loss and gradients for x [batch, in], contiguous, and labels [batch]."""
    variant = variant or default(links)
    # Of the first layer there is no input gradient.
    transposed = [link.transposed_values if number else link.values for number, link in enumerate(links)]
    cut, heights = Cut.of(len(labels), x.dtype, variant), heights_of(links)
    own = arguments_for(links, cut, transposed, heights, rows_of(heights))
    function = _gradients(name_of(x.dtype), cut.chunks, variant.vector_bytes, own.forms)
    run(function, [x, labels, *own.rest], min(cut.parts, variant.threads))
    found = (own.sums[0] if len(own.sums) == 1 else own.sums.sum(0)).split(own.lengths)
    loss = own.powers.log_().add_(own.shifts).sum().div_(len(labels))
    values = [its.view_as(link.values) for its, link in zip(found[::2], links, strict=True)]
    return Gradients(loss, values, list(found[1::2]))


class Layer(NamedTuple):
    """A layer in the making: its matrix and its transpose, its bias, its rows, and its gradients' sums."""

    form: Form
    transposed_form: Form
    arrays: Sequence[Any]
    values: Any
    bias: Any
    bias_step: Any
    transposed_arrays: Sequence[Any]
    transposed_values: Any
    rows: Any
    tile_rows: Any  # of what it puts out: rows, and zeros that fill whole blocks
    numbers: Any  # of values
    own_values: Any = None
    own_biases: Any = None
    transposed_sums: Any = None  # of values' gradients in the transpose's order

    @classmethod
    def of(cls, form: Form, transposed_form: Form, arguments: Iterator[Any]) -> "Layer":
        """Take a layer's arguments."""
        own: list[Any] = [[*islice(arguments, form.addresses)], *islice(arguments, 3)]
        own += [[*islice(arguments, transposed_form.addresses)], *islice(arguments, 4)]
        return cls(form, transposed_form, *own)

    def biased(self, emit: Emitter, row: Any, chunks: int) -> list[Any]:
        """Return what a row is before its product; one that only fills a block is what the last is."""
        if self.form.unit[0] > 1:
            row = emit.least(row, emit.add(self.rows, -1))
        return [emit.splat(emit.load(emit.number, emit.add(self.bias, emit.times(row, self.bias_step))))] * chunks

    def add_bias(self, emit: Emitter, row: Any, vectors: list[Any], is_first: Any) -> None:
        """Add a row's gradient to the sum of the bias."""
        total = vectors[0]
        for vector in vectors[1:]:
            total = emit.plus(total, vector)
        add_to(emit, emit.total(total), emit.add(self.own_biases, emit.times(row, emit.width)), is_first)


def layers_of(emit: Emitter, forms: Sequence[Form]) -> list[Layer]:
    """Emit the loads of all layers' arguments."""
    arguments = map(emit.argument, count(FIRST))
    return [Layer.of(*pair, arguments) for pair in zip(forms[::2], forms[1::2], strict=True)]


def end_of(forms: Sequence[Form]) -> int:
    """Return the place of the first argument after those of the layers."""
    return FIRST + sum(form.addresses for form in forms) + AFTER * len(forms) // 2


@kernel
def _gradients(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form]) -> int:
    """Return the address of the kernel of `gradients` for tiles of so many vectors; see `emit_pass`."""
    emit = emitter_for(dtype, vector_bytes)
    emit_pass(emit, chunks, forms)
    return emit.compiled()


def emit_pass(emit: Emitter, chunks: int, forms: Sequence[Form], orders: Sequence[Any] | None = None) -> None:
    """Emit a pass, whose tasks are parts of the batch.

    There are as many layers as pairs of `forms`, those of a layer's structure and of its transpose's. With `orders`, for CSR
    matrices with whole transposes, a walk of each but the first's gives both gradients: each thread, by its number, has its own
    values and sums in these orders, `own_bytes` after its tile, so that no other's have to come out of another core's caches.
    """
    tile_bytes = chunks * emit.vector_bytes
    x, labels, powers, shifts, scratch, sums, numbers, batch, tiles, parts = (emit.argument(place) for place in range(10))
    scratch_bytes, all_rows, widest, inputs, input_rows = (emit.argument(place) for place in range(10, 15))
    layers = layers_of(emit, forms)
    own = emit.own_part(scratch, scratch_bytes)
    held = [own]  # the input of each layer, then the logits
    for rows in (input_rows, *(layer.tile_rows for layer in layers[:-1])):
        held.append(emit.add(held[-1], emit.times(rows, tile_bytes)))
    after = emit.add(own, emit.times(all_rows, tile_bytes))
    slopes = [held[-1]] if orders else [after, emit.add(after, emit.times(widest, tile_bytes))]
    if orders:
        emit_own(emit, layers, orders, after)

    with emit.tasks(parts) as part:
        own_sums = emit.add(sums, emit.times(emit.times(part, numbers), emit.width))  # of values, biases, values ...
        for number, layer in enumerate(layers):
            biases = emit.add(own_sums, emit.times(layer.numbers, emit.width))
            layers[number] = layer._replace(own_values=own_sums, own_biases=biases)
            own_sums = emit.add(biases, emit.times(layer.rows, emit.width))
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            begin = emit.times(tile.place, chunks * emit.lanes)
            take_in(emit, x, (begin, batch), inputs, held[0], chunks)
            emit.clear(held[0], inputs, input_rows, chunks)
            _forward(emit, layers, held, chunks)
            samples = (labels, powers, shifts, tile.place, batch)
            cross_entropy(emit, held[-1], slopes[0], layers[-1].rows, samples, chunks)
            emit.clear(slopes[0], layers[-1].rows, layers[-1].tile_rows, chunks)
            is_first = emit.builder.icmp_signed("==", tile.place, first_tile)
            if orders:
                bytes_of_x = emit.times(inputs, chunks * emit.vector_bytes)
                following = emit.add(x, emit.times(emit.add(tile.place, 1), bytes_of_x)), bytes_of_x
                emit_backward(emit, layers, held, chunks, is_first, following)
            else:
                _backward(emit, layers, held, slopes, chunks, is_first)
        for layer, order in list(zip(layers, orders or [], strict=False))[1:]:
            scatter(emit, layer.transposed_sums, order, layer.own_values, layer.numbers)


def _forward(emit: Emitter, layers: Sequence[Layer], held: Sequence[Any], chunks: int) -> None:
    """Write what each layer puts out for a tile, after ReLU but for the last."""
    for layer, *tiles in zip(layers, held[:-1], held[1:], strict=True):
        rows = emit.constant(0), emit.over(layer.rows, layer.form.unit[0])
        emit_outputs(emit, layer, tiles, rows, chunks, relu=layer is not layers[-1])
        emit.clear(tiles[1], layer.rows, layer.tile_rows, chunks)


def emit_outputs(emit: Emitter, layer: Layer, tiles: Sequence[Any], rows: Sequence[Any], chunks: int, *, relu: bool) -> None:
    """Write what a layer puts out for a tile, from one of its rows of units to below another, from the tile of its input."""
    before, after = tiles

    def finish(row: Any, totals: list[Any]) -> None:
        totals = [emit.passed(total, total) for total in totals] if relu else totals
        emit.write(totals, emit.add(after, emit.times(row, chunks * emit.vector_bytes)))

    matrix = layer.form.matrix(layer.arrays, layer.values)
    matrix.products(emit, rows, before, Sums(lambda row: layer.biased(emit, row, chunks), finish, after, chunks))


def _backward(
    emit: Emitter, layers: Sequence[Layer], held: Sequence[Any], slopes: Sequence[Any], chunks: int, is_first: Any
) -> None:
    """Add up the gradients of each layer for a tile, the last layer's first."""
    slope, below = slopes
    for number, layer in reversed(list(enumerate(layers))):

        def each(row: Any, vectors: list[Any], layer: Layer = layer) -> None:
            layer.add_bias(emit, row, vectors, is_first)

        matrix = layer.form.matrix(layer.arrays, layer.own_values)
        matrix.sampled(emit, layer.rows, slope, held[number], chunks, is_first, each, below)
        if number:
            inputs = layers[number - 1]
            rows = emit.constant(0), emit.over(inputs.rows, layer.transposed_form.unit[0])
            emit_input_gradient(emit, layer, (slope, held[number], below), rows, chunks)
            emit.clear(below, inputs.rows, inputs.tile_rows, chunks)
            slope, below = below, slope


def emit_input_gradient(emit: Emitter, layer: Layer, tiles: Sequence[Any], rows: Sequence[Any], chunks: int) -> None:
    """Write a layer's input gradient for a tile, from one row of units to below another.

    The tiles are its output gradient, its input, which is what ReLU let pass, and what is written.
    """
    slope, passed, below = tiles

    def finish(row: Any, totals: list[Any]) -> None:
        offset = emit.times(row, chunks * emit.vector_bytes)
        outputs = emit.vectors(emit.add(passed, offset), chunks)
        emit.write([emit.passed(*pair) for pair in zip(outputs, totals, strict=True)], emit.add(below, offset))

    matrix = layer.transposed_form.matrix(layer.transposed_arrays, layer.transposed_values)
    matrix.products(emit, rows, slope, Sums(lambda _: [emit.zero()] * chunks, finish, below, chunks))
