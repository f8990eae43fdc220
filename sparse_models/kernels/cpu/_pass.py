"""Loss and gradients of a chain of sparse layers, a tile of the batch at a time.

A tile goes through all layers, forward and backward, while it is in the caches; the gradients of the weights, at the non-zeros
alone, are added up from tile to tile. Layer by layer, every activation would go out to memory and come back three times.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._loss import cross_entropy
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import TILE_BYTES, TOGETHER, Sums, add_to, emitter_for, of_bias, tiling
from sparse_models.kernels.cpu.blocks._matrix import BlockForm
from sparse_models.kernels.cpu.blocks.products import whole_blocks
from sparse_models.kernels.cpu.csr._matrix import CsrForm
from sparse_models.kernels.link import Gradients, Link
from sparse_models.kernels.structure import AnyStructure, Structure
from sparse_models.kernels.variant import Variant

CHUNKS = 4  # vectors in a tile, unless another variant is chosen: so that all layers' rows of it stay in the second cache
PARTS_PER_THREAD = 2  # of the batch: who is done early takes another
Form = CsrForm | BlockForm


def form_of(structure: AnyStructure, chunks: int, variant: Variant) -> Form:
    """Return what a kernel is compiled for, of a structure."""
    return CsrForm.of(structure.sizes, chunks, variant) if isinstance(structure, Structure) else BlockForm.of(structure)


def _heights(links: Sequence[Link]) -> list[int]:
    """Return the rows of a tile for the input of each layer and for the logits: features, and zeros that fill whole blocks."""
    rows, columns = (
        [(matrix.rows, matrix.unit[0]) for matrix in each] for each in zip(*(one[:2] for one in links), strict=True)
    )
    both = [(columns[0],), *zip(rows[:-1], columns[1:], strict=True), (rows[-1],)]
    return [max(-(-features // unit) * unit for features, unit in each) for each in both]


def _rows(heights: Sequence[int]) -> int:
    """Return the rows of a tile: the input of every layer, the logits, and two gradients of the widest of them."""
    return sum(heights) + 2 * max(heights)


def default(links: Sequence[Link]) -> Variant:
    """Return the variant that suits most machines: a tile goes through all layers where a second cache holds it in all."""
    fits = _rows(_heights(links)) * CHUNKS * vector_bytes() <= TILE_BYTES
    return Variant(CHUNKS if fits else 0, TOGETHER, vector_bytes(), threads())


def tile_by_tile(links: Sequence[Link], x: Tensor, labels: Tensor, variant: Variant | None = None) -> Gradients:
    """Return loss and gradients for x [batch, in], contiguous, and labels [batch]."""
    batch, dtype, variant = len(labels), name_of(x.dtype), variant or default(links)
    chunks, tiles = tiling(batch, dtype, variant.vectors, variant.vector_bytes)
    parts = min(tiles, PARTS_PER_THREAD * variant.threads)
    team = min(parts, variant.threads)
    heights = _heights(links)
    scratch = torch.empty(team, _rows(heights) * chunks * variant.vector_bytes + CACHE_LINE, dtype=torch.uint8)
    powers, shifts = x.new_empty(2, tiles * variant.vector_bytes // BYTES[dtype])
    lengths = [length for link in links for length in (link.values.numel(), link.rows.rows)]
    sums = x.new_empty(parts, sum(lengths))
    arguments: list[Tensor | int] = [x, labels, powers, shifts, scratch, sums, sums.shape[1], batch, tiles, parts]
    arguments += [scratch.shape[1], sum(heights), max(heights), links[0].rows.columns, heights[0]]
    for number, (link, height) in enumerate(zip(links, heights[1:], strict=True)):
        transposed = link.transposed_values if number else link.values  # of the first layer there is no input gradient
        bias = None if link.bias is None else whole_blocks(link.bias, link.rows.unit[0])
        row_arguments, column_arguments = (
            form_of(structure, chunks, variant).arguments(cast("Any", structure), chunks, variant) for structure in link[:2]
        )
        arguments += [*row_arguments, link.values, *of_bias(bias), *column_arguments, transposed]
        arguments += [link.rows.rows, height, link.values.numel()]
    forms = tuple(form_of(structure, chunks, variant) for link in links for structure in link[:2])
    run(_gradients(dtype, chunks, variant.vector_bytes, forms), arguments, team)
    found = (sums[0] if parts == 1 else sums.sum(0)).split(lengths)
    loss = powers.log_().add_(shifts).sum().div_(batch)
    values = [own.view_as(link.values) for own, link in zip(found[::2], links, strict=True)]
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

    @classmethod
    def of(cls, form: Form, transposed_form: Form, arguments: Iterator[Any]) -> "Layer":
        """Take a layer's arguments."""
        own: list[Any] = [[*islice(arguments, form.addresses)], *islice(arguments, 3)]
        own += [[*islice(arguments, transposed_form.addresses)], *islice(arguments, 4)]
        return cls(form, transposed_form, *own)

    def biased(self, emit: Emitter, row: Any, chunks: int) -> list[Any]:
        """Return what a row is before its product."""
        return [emit.splat(emit.load(emit.number, emit.add(self.bias, emit.times(row, self.bias_step))))] * chunks

    def add_bias(self, emit: Emitter, row: Any, vectors: list[Any], is_first: Any) -> None:
        """Add a row's gradient to the sum of the bias."""
        total = vectors[0]
        for vector in vectors[1:]:
            total = emit.plus(total, vector)
        add_to(emit, emit.total(total), emit.add(self.own_biases, emit.times(row, emit.width)), is_first)


@kernel
def _gradients(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form]) -> int:
    """Return the address of the kernel of `gradients` for tiles of so many vectors.

    There are as many layers as pairs of `forms`, those of a layer's structure and of its transpose's.
    """
    emit = emitter_for(dtype, vector_bytes)
    tile_bytes = chunks * emit.vector_bytes
    x, labels, powers, shifts, scratch, sums, numbers, batch, tiles, parts = (emit.argument(place) for place in range(10))
    scratch_bytes, all_rows, widest, inputs, input_rows = (emit.argument(place) for place in range(10, 15))
    arguments = map(emit.argument, count(15))
    layers = [Layer.of(*pair, arguments) for pair in zip(forms[::2], forms[1::2], strict=True)]
    own = emit.own_part(scratch, scratch_bytes)
    held = [own]  # the input of each layer, then the logits
    for rows in (input_rows, *(layer.tile_rows for layer in layers[:-1])):
        held.append(emit.add(held[-1], emit.times(rows, tile_bytes)))
    slopes = [emit.add(own, emit.times(all_rows, tile_bytes))]
    slopes.append(emit.add(slopes[0], emit.times(widest, tile_bytes)))

    with emit.tasks(parts) as part:
        own_sums = emit.add(sums, emit.times(emit.times(part, numbers), emit.width))  # of values, biases, values ...
        for number, layer in enumerate(layers):
            biases = emit.add(own_sums, emit.times(layer.numbers, emit.width))
            layers[number] = layer._replace(own_values=own_sums, own_biases=biases)
            own_sums = emit.add(biases, emit.times(layer.rows, emit.width))
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            begin = emit.times(tile.place, chunks * emit.lanes)
            _take_in(emit, x, (begin, batch), inputs, held[0], chunks)
            emit.clear(held[0], inputs, input_rows, chunks)
            _forward(emit, layers, held, chunks)
            samples = (labels, powers, shifts, tile.place, batch)
            cross_entropy(emit, held[-1], slopes[0], layers[-1].rows, samples, chunks)
            emit.clear(slopes[0], layers[-1].rows, layers[-1].tile_rows, chunks)
            _backward(emit, layers, held, slopes, chunks, emit.builder.icmp_signed("==", tile.place, first_tile))
    return emit.compiled()


def _forward(emit: Emitter, layers: Sequence[Layer], held: Sequence[Any], chunks: int) -> None:
    """Write what each layer puts out for a tile, after ReLU but for the last."""
    for layer, before, after in zip(layers, held[:-1], held[1:], strict=True):

        def begin(row: Any, layer: Layer = layer) -> list[Any]:
            return layer.biased(emit, row, chunks)

        def finish(row: Any, totals: list[Any], layer: Layer = layer, after: Any = after) -> None:
            totals = totals if layer is layers[-1] else [emit.passed(total, total) for total in totals]
            emit.write(totals, emit.add(after, emit.times(row, chunks * emit.vector_bytes)))

        rows = emit.constant(0), emit.over(layer.rows, layer.form.unit[0])
        layer.form.matrix(layer.arrays, layer.values).products(emit, rows, before, Sums(begin, finish, after, chunks))
        emit.clear(after, layer.rows, layer.tile_rows, chunks)


def _backward(
    emit: Emitter, layers: Sequence[Layer], held: Sequence[Any], slopes: Sequence[Any], chunks: int, is_first: Any
) -> None:
    """Add up the gradients of each layer for a tile, the last layer's first."""
    slope, below = slopes
    for number, layer in reversed(list(enumerate(layers))):

        def each(row: Any, vectors: list[Any], layer: Layer = layer) -> None:
            layer.add_bias(emit, row, vectors, is_first)

        def finish(row: Any, totals: list[Any], before: Any = held[number], below: Any = below) -> None:
            offset = emit.times(row, chunks * emit.vector_bytes)
            outputs = emit.vectors(emit.add(before, offset), chunks)
            emit.write([emit.passed(*pair) for pair in zip(outputs, totals, strict=True)], emit.add(below, offset))

        matrix = layer.form.matrix(layer.arrays, layer.own_values)
        matrix.sampled(emit, layer.rows, slope, held[number], chunks, is_first, each)
        if number:
            inputs, form = layers[number - 1], layer.transposed_form
            transposed = form.matrix(layer.transposed_arrays, layer.transposed_values)
            rows = emit.constant(0), emit.over(inputs.rows, form.unit[0])
            transposed.products(emit, rows, slope, Sums(lambda _: [emit.zero()] * chunks, finish, below, chunks))
            emit.clear(below, inputs.rows, inputs.tile_rows, chunks)
            slope, below = below, slope


def _take_in(emit: Emitter, x: Any, samples: Sequence[Any], inputs: Any, target: Any, chunks: int) -> None:
    """Copy a tile of x [batch, in] to [in, tile]; where the batch has no more samples, the last stands again."""
    begin, batch = samples
    lanes, tile_bytes = emit.lanes, chunks * emit.lanes * emit.width
    whole = emit.times(emit.builder.sdiv(inputs, emit.constant(lanes)), lanes)
    for chunk in range(chunks):
        own = emit.add(target, chunk * lanes * emit.width)
        rows = []
        for lane in range(lanes):
            sample = emit.least(emit.add(begin, chunk * lanes + lane), emit.add(batch, -1))
            rows.append(emit.add(x, emit.times(emit.times(sample, inputs), emit.width)))
        with emit.loop(emit.constant(0), whole, lanes) as feature:
            offset = emit.times(feature.place, emit.width)
            square = emit.transposed([emit.load(emit.vector, emit.add(row, offset)) for row in rows])
            at = emit.add(own, emit.times(feature.place, tile_bytes))
            for number, column in enumerate(square):
                emit.store(column, emit.add(at, number * tile_bytes))
        with emit.loop(whole, inputs) as feature:
            offset = emit.times(feature.place, emit.width)
            at = emit.add(own, emit.times(feature.place, tile_bytes))
            for number, row in enumerate(rows):
                emit.store(emit.load(emit.number, emit.add(row, offset)), emit.add(at, number * emit.width))
