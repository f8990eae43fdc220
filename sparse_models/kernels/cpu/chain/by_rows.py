"""A training step in which the threads share out the rows of one layer after the other, for batches of few tiles.

One call from Python and one team of threads, which wait for one another after each layer. Every weight's gradient is found by
one thread, which updates the weight at once: there are no sums of parts to be written and added up. For many tiles, all of
whose activations no cache holds, it is better that each goes through all layers by itself (`by_tiles`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._loss import cross_entropy
from sparse_models.kernels.cpu._pass import Layer, emit_input_gradient, emit_outputs
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.chain._cut import Cut, Form, arguments_for, heights_of
from sparse_models.kernels.cpu.chain._factors import Leaving, factors_in
from sparse_models.kernels.cpu.chain._frame import Frame, ready_with, reordered
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter
from sparse_models.kernels.cpu.chain.rules import Rule
from sparse_models.kernels.cpu.csr._form import CsrForm
from sparse_models.kernels.cpu.csr._panels import Panel, default
from sparse_models.kernels.cpu.transpose import take_in
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import Structure
from sparse_models.kernels.variant import Variant

SHARES_PER_THREAD = 4  # of each layer's rows, and of a tile's


def ready(
    links: Sequence[Link], parameters: Sequence[Parameter | None], rule: Rule, batch: int, variant: Variant | None = None
) -> Ready:
    """Return a step on so many samples for a chain of layers, whose parameters are each one's values and bias in turn."""
    return leaving(links, parameters, rule, batch, variant).ready


def leaving(
    links: Sequence[Link], parameters: Sequence[Parameter | None], rule: Rule, batch: int, variant: Variant | None = None
) -> Leaving:
    """Return the same step with what it leaves of each layer: every tile has memory of its own."""
    heights, dtype = heights_of(links), links[0].values.dtype
    variant = variant or default_of(links)
    cut = Cut.of(batch, dtype, variant)
    cut = cut._replace(parts=1, scratches=cut.tiles)
    # The input of each layer, the logits, and the gradient of all but the input.
    own = arguments_for(links, cut, reordered(links), heights, sum(heights) + sum(heights[1:]))
    function = _step(name_of(dtype), cut.chunks, variant.vector_bytes, own.forms, rule)
    sizes = variant.threads, SHARES_PER_THREAD * variant.threads
    factors = factors_in(cast("Tensor", own.rest[2]), heights, cut.chunks * variant.vector_bytes // dtype.itemsize, dtype)
    return Leaving(ready_with(function, own, links, parameters, rule, sizes), factors)


def default_of(links: Sequence[Link]) -> Variant:
    """Return the variant that suits most machines for the layer of which a tile has most rows."""
    structures = [cast("Structure", structure) for link in links for structure in link[:2]]
    return default(max(structures, key=lambda structure: structure.columns).sizes)


def _in_place(tile: Any, _: Panel) -> Any:
    """Return where a tile begins of which a panel need not be packed."""
    return tile


class _Rows(Frame):
    """A step by rows in the making: where a tile's rows are, and how they are shared out."""

    def __init__(self, dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form], rule: Rule) -> None:
        """Emit the loads of the arguments."""
        super().__init__(emitter_for(dtype, vector_bytes), forms, rule)
        emit, self.chunks, self.tile_bytes = self.emit, chunks, chunks * vector_bytes
        sizes = [self.inputs, *(layer.rows for layer in self.layers)]
        self.offsets = [emit.constant(0)]  # of the input of each layer, of the logits, and of the gradients from the second on
        for size in (*sizes, *sizes[1:-1]):
            self.offsets.append(emit.add(self.offsets[-1], emit.times(size, self.tile_bytes)))
        sums = self.sums
        for number, layer in enumerate(self.layers):
            biases = emit.add(sums, emit.times(layer.numbers, emit.width))
            self.layers[number] = layer._replace(own_values=sums, own_biases=biases)
            sums = emit.add(biases, emit.times(layer.rows, emit.width))

    def held(self, tile: Any, number: int) -> Any:
        """Return the address of a layer's input in a tile, or that of the logits."""
        return self._of(tile, number)

    def slope(self, tile: Any, number: int) -> Any:
        """Return the address of a layer's output gradient in a tile."""
        return self._of(tile, len(self.layers) + 1 + number)

    def _of(self, tile: Any, number: int) -> Any:
        own = self.emit.add(self.scratch, self.emit.times(tile, self.scratch_bytes))
        return self.emit.add(self.emit.aligned(own), self.offsets[number])

    def take_in(self, tile: Any, block: Any) -> None:
        """Emit the copying of some features of the input."""
        emit = self.emit
        start, end = (
            emit.times(part, emit.lanes) for part in emit.share(emit.over(self.inputs, emit.lanes), block, self.shares)
        )
        begin = emit.times(tile, self.chunks * emit.lanes)
        some = start, emit.least(end, self.inputs)
        take_in(emit, self.x, (begin, self.batch), self.inputs, self.held(tile, 0), self.chunks, some)

    def sample(self, number: int, layer: Layer, share: Any) -> None:
        """Emit the gradients of a share of a layer's rows, over all tiles, and the update of their weights."""
        emit, (start, end) = self.emit, self.emit.share(layer.rows, share, self.shares)
        assert isinstance(layer.form, CsrForm)
        matrix = layer.form.matrix(layer.arrays, layer.own_values)
        with emit.loop(emit.constant(0), self.tiles) as tile:
            is_first = emit.builder.icmp_signed("==", tile.place, emit.constant(0))
            slope, held = self.slope(tile.place, number), self.held(tile.place, number)

            def vectors(row: Any, slope: Any = slope) -> list[Any]:
                return emit.vectors(emit.add(slope, emit.times(row, self.tile_bytes)), self.chunks)

            def each(row: Any, own: list[Any], is_first: Any = is_first) -> None:
                layer.add_bias(emit, row, own, is_first)

            matrix.panel_sampled(emit, (start, end), partial(_in_place, held), vectors, is_first, each)
        values, biases = (self.updated(emit.constant(2 * number + place)) for place in (0, 1))
        self.update(values, *(emit.index(self.pointers[number], row) for row in (start, end)))
        self.update(biases, start, end)


@kernel
def _step(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form], rule: Rule) -> int:
    """Return the address of the kernel of a step for tiles of so many vectors."""
    step = _Rows(dtype, chunks, vector_bytes, forms, rule)
    emit, layers, last = step.emit, step.layers, len(step.layers) - 1
    each = emit.times(step.tiles, step.shares)
    with step.emit.tasks(each) as task:
        tile, block = emit.divided(task, step.shares)
        step.take_in(tile, block)
        with emit.builder.if_then(emit.builder.icmp_signed("==", tile, emit.constant(0))):
            step.reorder(block)
    for number, layer in enumerate(layers):
        with step.emit.tasks(each) as task:
            tile, block = emit.divided(task, step.shares)
            rows = emit.share(layer.rows, block, step.shares)
            emit_outputs(emit, layer, (step.held(tile, number), step.held(tile, number + 1)), rows, chunks, relu=number < last)
    with step.emit.tasks(step.tiles) as tile:
        samples = (step.labels, step.powers, step.shifts, tile, step.batch)
        cross_entropy(emit, step.held(tile, last + 1), step.slope(tile, last), layers[-1].rows, samples, chunks)
    for number, layer in reversed(list(enumerate(layers))[1:]):
        with step.emit.tasks(each) as task:
            tile, block = emit.divided(task, step.shares)
            rows = emit.share(layers[number - 1].rows, block, step.shares)
            tiles = step.slope(tile, number), step.held(tile, number), step.slope(tile, number - 1)
            emit_input_gradient(emit, layer, tiles, rows, chunks)
    with step.emit.tasks(step.shares) as share:
        with emit.builder.if_then(emit.builder.icmp_signed("==", share, emit.constant(0))):
            step.write_loss()
        for number, layer in reversed(list(enumerate(layers))):
            step.sample(number, layer, share)
    return emit.compiled()
